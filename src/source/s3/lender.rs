//! Keys that are lent for a while, and asked for again before that is over. Sources: AWS STS API Reference,
//! `AssumeRoleWithWebIdentity` (MinIO answers the same); AWS SDKs and Tools Reference Guide, "Container credential
//! provider".

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::credentials::{Authorization, Credentials, Keys, Lender};
use super::settings::Settings;
use super::xml;
use crate::error::{Error, Result};
use crate::source::Trouble;
use crate::source::http::{self, Client, Failure, Proxies, Request, Response, Url, encode_query};
use crate::source::reading::ask;
use crate::tensor::Excerpt;

const MAX_ANSWER_BYTES: usize = 64 << 10;

/// What has been lent to this process, so that whoever looks at a source now and then does not ask each time.
static LENT: Mutex<Vec<(Lender, Arc<Mutex<Lent>>)>> = Mutex::new(Vec::new());

/// Who signs requests. Shared by threads.
pub struct Signer {
    settings: Settings,
    lent: Option<(Lender, Arc<Mutex<Lent>>)>,
    known: Option<Arc<Keys>>,
}

struct Lent {
    keys: Arc<Keys>,
    /// Without one they are lent for good.
    until: Option<SystemTime>,
    /// When to ask again.
    renew: Option<SystemTime>,
}

impl Signer {
    /// Asks for keys when they are lent, unless this process has some.
    ///
    /// # Errors
    /// When there are none to be had.
    pub fn new(settings: &Settings) -> Result<Signer> {
        let (mut known, mut lent) = (None, None);
        match &settings.credentials {
            Credentials::Anonymous => {}
            Credentials::Known(keys) => known = Some(Arc::new(keys.clone())),
            Credentials::Lent(lender) => {
                lent = Some((lender.clone(), lent_to_process(lender, settings)?));
            }
        }
        Ok(Signer { settings: settings.clone(), lent, known })
    }

    /// The keys to sign with now; `None` for a public bucket.
    pub fn keys(&self) -> Option<Arc<Keys>> {
        /// Until somebody asks again when there was no answer.
        const PAUSE: Duration = Duration::from_secs(10);
        let Some((lender, lent)) = &self.lent else { return self.known.clone() };
        let locked = || lock(lent);
        let is_due = locked().renew.take_if(|renew| *renew <= SystemTime::now()).is_some();
        // By this thread alone: the others sign with the keys from before meanwhile.
        if is_due {
            match borrow(lender, &self.settings, 1) {
                Ok(anew) => *locked() = anew,
                Err(error) => {
                    tracing::warn!(%error, "the keys from before are used on");
                    locked().renew = Some(SystemTime::now() + PAUSE);
                }
            }
        }
        Some(locked().keys.clone())
    }

    /// Until when what they sign is valid.
    pub fn until(&self) -> Option<SystemTime> {
        self.lent.as_ref().and_then(|(_, lent)| lock(lent).until)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("no thread panics with it")
}

/// The keys from before while they last, or new ones. Those that are lent for good are not kept: nothing would say that
/// there are others.
fn lent_to_process(lender: &Lender, settings: &Settings) -> Result<Arc<Mutex<Lent>>> {
    let lasts = |lent: &Mutex<Lent>| lock(lent).until.is_some_and(|until| until > SystemTime::now());
    if let Some((_, lent)) = lock(&LENT).iter().find(|(whose, lent)| whose == lender && lasts(lent)) {
        return Ok(lent.clone());
    }
    let lent = Arc::new(Mutex::new(borrow(lender, settings, settings.max_attempts)?));
    let mut kept = lock(&LENT);
    kept.retain(|(whose, lent)| whose != lender && lasts(lent));
    kept.push((lender.clone(), lent.clone()));
    Ok(lent)
}

/// Asks for keys.
fn borrow(lender: &Lender, settings: &Settings, attempts: u32) -> Result<Lent> {
    let (Answer { mut keys, until }, what) = match lender {
        Lender::WebIdentity { token_file, role, session, endpoint } => {
            let endpoint = Url::parse(endpoint).map_err(|error| error.context("the token service's address"))?;
            let token = read(token_file, "AWS_WEB_IDENTITY_TOKEN_FILE")?;
            let form = encode_query(&[
                ("Action", "AssumeRoleWithWebIdentity"),
                ("Version", "2011-06-15"),
                ("RoleArn", role),
                ("RoleSessionName", session),
                ("WebIdentityToken", &token),
            ]);
            let headers = [("content-type", "application/x-www-form-urlencoded".to_owned())];
            let request = Request { method: "POST", url: &endpoint, headers: &headers, body: &form };
            let client = Client::new(
                http::tls_config(&settings.trust(&endpoint))?,
                settings.patience(),
                settings.proxies.clone(),
            );
            let what = format!("credentials for {role} from {endpoint}");
            (ask(attempts, || answer(&client, &request, &what, of_token_service))?, what)
        }
        Lender::Agent { url, authorization } => {
            let url = Url::parse(url).map_err(|error| error.context("AWS_CONTAINER_CREDENTIALS_FULL_URI"))?;
            check_agent(&url)?;
            let text = match authorization {
                Authorization::Nothing => None,
                Authorization::Text(text) => Some(text.clone()),
                Authorization::File(path) => Some(read(path, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")?),
            };
            let headers: Vec<_> = text.map(|text| ("authorization", text)).into_iter().collect();
            let request = Request { method: "GET", url: &url, headers: &headers, body: "" };
            // No proxy leads to what is beside the pod.
            let tls = http::tls_config(&settings.trust(&url))?;
            let client = Client::new(tls, settings.patience(), Proxies::default());
            let what = format!("credentials from the agent at {url}");
            (ask(attempts, || answer(&client, &request, &what, of_agent))?, what)
        }
    };
    keys.session_token = keys.session_token.filter(|token| !token.is_empty());
    let until = until.as_deref().map(|until| {
        let wrong = |end| Error::load(format!("{what} are lent until \"{}\", which {end}", Excerpt(until)));
        let utc = until.strip_suffix("+00:00").or(until.strip_suffix("+0000")).unwrap_or(until);
        let end = humantime::parse_rfc3339_weak(utc).map_err(|_| wrong("is no time"))?;
        if end <= SystemTime::now() { Err(wrong("is over: are the clocks right?")) } else { Ok(end) }
    });
    let (until, now) = (until.transpose()?, SystemTime::now());
    // After most of the time, so that there is some left in which to ask more than once.
    let renew = until.map(|until| now + until.duration_since(now).unwrap_or_default() * 4 / 5);
    Ok(Lent { keys: Arc::new(keys), until, renew })
}

fn read(path: &Path, variable: &str) -> Result<String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Error::load(format!("{variable} {}: {error}", path.display())))?;
    Ok(text.trim().to_owned())
}

/// What is asked for keys without TLS is this machine, or is known to be.
fn check_agent(url: &Url) -> Result<()> {
    const KNOWN: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];
    let origin = url.origin();
    if origin.https || origin.is_loopback() || KNOWN.contains(&origin.name.as_str()) {
        return Ok(());
    }
    Err(Error::load(format!("AWS_CONTAINER_CREDENTIALS_FULL_URI: {url} is neither https nor an agent of this machine")))
}

/// Keys as they are told.
struct Answer {
    keys: Keys,
    until: Option<String>,
}

fn answer(
    client: &Client,
    request: &Request<'_>,
    what: &str,
    read: fn(&str) -> Result<Answer, String>,
) -> Result<Answer, Trouble> {
    let trouble = |text: &str, retry| Trouble { error: Error::load(format!("cannot have {what}: {text}")), retry };
    let failed = |failure: &Failure| trouble(&failure.to_string(), failure.may_pass().then_some(Duration::ZERO));
    let mut response: Response<'_> = client.send(request).map_err(|failure| failed(&failure))?;
    let body = response.body.read_all(MAX_ANSWER_BYTES).map_err(|failure| failed(&failure))?;
    let (status, body) = (response.status, String::from_utf8_lossy(&body));
    read(&body).map_err(|said| {
        let said = if said.is_empty() { String::new() } else { format!(": {}", Excerpt(&said)) };
        trouble(&format!("status {status}{said}"), response.retry())
    })
}

fn of_token_service(text: &str) -> Result<Answer, String> {
    let refused = || {
        let said = xml::error(text);
        if said.code.is_empty() {
            "the answer is no token service's".to_owned()
        } else {
            format!("{} {}", said.code, said.message)
        }
    };
    xml::lent(text).map(|(keys, until)| Answer { keys, until }).ok_or_else(refused)
}

fn of_agent(text: &str) -> Result<Answer, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Lent {
        access_key_id: String,
        secret_access_key: String,
        token: Option<String>,
        expiration: Option<String>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Said {
        #[serde(alias = "Code")]
        code: String,
        #[serde(alias = "Message")]
        message: String,
    }
    match serde_json::from_str::<Lent>(text) {
        Ok(Lent { access_key_id, secret_access_key, token, expiration }) => {
            Ok(Answer { keys: Keys { access_key_id, secret_access_key, session_token: token }, until: expiration })
        }
        Err(_) => {
            let Said { code, message } = serde_json::from_str(text).unwrap_or_default();
            Err(format!("{code} {message}").trim().to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// An agent whose keys are `key 0`, `key 1` and so on, each lent for so many seconds; after the last it is gone.
    fn agent(seconds: &'static [u64]) -> Settings {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for (number, seconds) in seconds.iter().enumerate() {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                let until = humantime::format_rfc3339_millis(SystemTime::now() + Duration::from_secs(*seconds));
                let body = format!(
                    r#"{{"AccessKeyId": "key {number}", "SecretAccessKey": "s", "Token": "", "Expiration": "{until}"}}"#
                );
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).unwrap();
            }
        });
        let vars = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()), ("S3_MAX_ATTEMPTS", "1")];
        let env = |name: &str| vars.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        super::super::settings::from_env(&env).unwrap()
    }

    #[test]
    fn keys_are_renewed_before_they_end() {
        let signer = Signer::new(&agent(&[2, 3600])).unwrap();
        let key = || signer.keys().unwrap().access_key_id.clone();
        assert_eq!((key(), key()), ("key 0".to_owned(), "key 0".to_owned()));
        assert_eq!(signer.keys().unwrap().session_token, None);
        thread::sleep(Duration::from_millis(1700)); // less than a fifth is left
        assert_eq!((key(), key()), ("key 1".to_owned(), "key 1".to_owned()));
        assert!(signer.until().unwrap() > SystemTime::now() + Duration::from_mins(50));
    }

    #[test]
    fn who_looks_again_does_not_ask_again() {
        let settings = agent(&[2, 3600]);
        let key = || Signer::new(&settings).unwrap().keys().unwrap().access_key_id.clone();
        assert_eq!((key(), key()), ("key 0".to_owned(), "key 0".to_owned()));
        thread::sleep(Duration::from_millis(2100));
        assert_eq!((key(), key()), ("key 1".to_owned(), "key 1".to_owned()));
    }

    #[test]
    fn keys_are_used_on_when_there_are_no_others() {
        let signer = Signer::new(&agent(&[1])).unwrap();
        thread::sleep(Duration::from_millis(900));
        assert_eq!(signer.keys().unwrap().access_key_id, "key 0");
    }

    #[test]
    fn answers_that_make_no_sense_are_told() {
        assert_eq!(of_agent("<html>").err().unwrap(), "");
        assert_eq!(of_agent(r#"{"code": "AccessDenied"}"#).err().unwrap(), "AccessDenied");
        assert!(of_token_service("<html>").err().unwrap().contains("no token service"));
        let error = "<ErrorResponse><Error><Code>Expired</Code><Message>it has</Message></Error></ErrorResponse>";
        assert_eq!(of_token_service(error).err().unwrap(), "Expired it has");
        let elsewhere = Url::parse("http://agent.example/").unwrap();
        assert!(check_agent(&elsewhere).unwrap_err().message().contains("neither https"));
    }
}
