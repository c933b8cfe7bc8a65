//! Structured logs: JSON for machines, text on a terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use crate::config::LogFormat;

/// Installs the process's log; the first call wins, later ones (tests start many servers) change nothing.
/// `level` is a `tracing` filter such as `info` or `info,stoker=debug`; it has been checked by the configuration.
pub fn init(format: LogFormat, level: &str) {
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    // A plain `debug` is about our requests, not about the libraries' frames; naming a library still shows it.
    let directives = format!("hyper=info,hyper_util=info,h2=info,rustls=info,{level}");
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_timer(SystemTime);
    let installed = if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).compact().try_init()
    };
    if installed.is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current().name().unwrap_or_default().to_owned();
            tracing::error!(thread, "{}", panic.to_string().replace('\n', " "));
        }));
    }
}
