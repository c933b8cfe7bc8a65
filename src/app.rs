//! The only place that knows everything: configuration to sockets, sockets to a served model, and back down again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::config::{Config, ServerConfig};
use crate::device::watch::Watch;
use crate::engine::Engine;
use crate::engine::admission::Admission;
use crate::engine::limiter::Limiter;
use crate::error::{Error, Result};
use crate::model::catalog::Catalog;
use crate::model::fleet::Fleet;
use crate::model::loader::Common;
use crate::model::site::Gpus;
use crate::server::Server;
use crate::telemetry::metrics::Metrics;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// How to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGTERM: stay reachable for a while, since routers learn late that we are leaving.
    Gradual,
    /// SIGINT: somebody is waiting at a terminal.
    Prompt,
}

/// A server with its ports taken, not yet serving.
pub struct App {
    config: Config,
    http: TcpSocket,
    grpc: Option<TcpSocket>,
    addresses: Addresses,
    metrics: Arc<Metrics>,
    catalog: Arc<Catalog>,
    fleet: Arc<Fleet>,
}

/// Where the server is, with real port numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub http: SocketAddr,
    pub grpc: Option<SocketAddr>,
}

impl App {
    /// Takes the ports. They do not accept before [`App::run`].
    ///
    /// # Errors
    /// When a port is taken or the address is not ours.
    pub fn bind(config: Config) -> Result<App> {
        let ServerConfig { http, grpc, .. } = config.server;
        let (http, http_address) = bind(http)?;
        let grpc = grpc.map(bind).transpose()?;
        let addresses = Addresses { http: http_address, grpc: grpc.as_ref().map(|(_, address)| *address) };
        let (metrics, catalog) = (Arc::new(Metrics::default()), Arc::new(Catalog::default()));
        let resources = config.model.batching.limits.iter().flat_map(|limits| limits.total.clone()).collect();
        let gpus = Gpus::new(Watch::new(metrics.devices.clone()), config.repository.is_some());
        let common = Common { metrics: metrics.clone(), limiter: Limiter::new(resources), gpus };
        let fleet = Fleet::new(&config, catalog.clone(), common);
        Ok(App { config, http, grpc: grpc.map(|(socket, _)| socket), addresses, metrics, catalog, fleet })
    }

    /// The models, which others may ask to be loaded anew.
    pub fn fleet(&self) -> Arc<Fleet> {
        self.fleet.clone()
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Loads the models and serves them until `shutdown`, then drains.
    ///
    /// # Errors
    /// When the one model cannot be loaded, or the repository cannot be read.
    pub async fn run(self, shutdown: impl Future<Output = Shutdown>) -> Result<()> {
        let App { config, http, grpc, addresses, metrics, catalog, fleet } = self;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        fleet.begin()?;
        let engine = Arc::new(Engine::new(catalog.clone(), Admission::new(config.limits)));
        let server = Server::new(engine.clone(), metrics, config.server.clone(), fleet.clone());
        let graceful = Arc::new(GracefulShutdown::new());
        let mut accepting = JoinSet::new();
        let mut sockets = Some([Some(http), grpc]);
        let mut open = |accepting: &mut JoinSet<()>| -> Result<()> {
            for socket in sockets.take().into_iter().flatten().flatten() {
                let address = socket.local_addr().map(|address| address.to_string()).unwrap_or_default();
                let failed = |error| Error::load(format!("cannot listen on {address}: {error}"));
                let listener = socket.listen(BACKLOG).map_err(failed)?;
                accepting.spawn(server.clone().accept(listener, graceful.clone()));
            }
            tracing::info!(http = %addresses.http, grpc = addresses.grpc.map(tracing::field::display), "listening");
            Ok(())
        };
        if !config.server.listen_when_ready {
            open(&mut accepting)?;
        }

        tokio::pin!(shutdown);
        let how = tokio::select! {
            begun = fleet.begun() => {
                begun?;
                if config.server.listen_when_ready {
                    open(&mut accepting)?;
                }
                shutdown.await
            }
            how = &mut shutdown => {
                if config.server.listen_when_ready || !catalog.is_any_ready() {
                    return Ok(()); // asked to leave before there was anything to serve
                }
                how
            }
        };
        server.start_draining();
        let delay = if how == Shutdown::Gradual { config.server.shutdown_delay } else { Duration::ZERO };
        tracing::info!(accepting_seconds = delay.as_secs_f64(), "shutting down");
        tokio::time::sleep(delay).await;
        accepting.shutdown().await;
        drop(server);
        drain(&engine, graceful, config.server.drain_timeout).await;
        fleet.end().await;
        Ok(())
    }
}

fn bind(address: SocketAddr) -> Result<(TcpSocket, SocketAddr)> {
    let failed = |error: std::io::Error| Error::load(format!("cannot listen on {address}: {error}"));
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    // A restarted server must not wait for the old one's connections to leave TIME_WAIT.
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok((socket, address))
}

/// Waits until the requests in flight are answered. A connection that has not sent its whole request by now, and then
/// takes its time, is not waited for.
async fn drain(engine: &Engine, graceful: Arc<GracefulShutdown>, limit: Duration) {
    const LAST_WORDS: Duration = Duration::from_secs(1);
    // The accept loops are gone, and with them the other references.
    let Some(graceful) = Arc::into_inner(graceful) else { return };
    let answered = async {
        while engine.inflight() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        () = graceful.shutdown() => {}
        () = answered => tracing::info!("idle connections are closed"),
        () = tokio::time::sleep(limit) => {
            tracing::warn!(seconds = limit.as_secs_f64(), "some requests did not finish in time (--drain_timeout_seconds)");
        }
    }
}
