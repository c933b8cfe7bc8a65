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
use crate::source::http::{self, Client, Failure, Patience, Proxies, Request, Response, Url, encode_query};
use crate::source::reading::ask;
use crate::tensor::Excerpt;

const MAX_ANSWER_BYTES: usize = 64 << 10;

/// What has been lent to this process, so that whoever looks at a source now and then does not ask each time.
static LENT: Mutex<Vec<(Lender, Arc<Account>)>> = Mutex::new(Vec::new());

/// Who signs requests. Shared by threads.
pub struct Signer {
    settings: Settings,
    lent: Option<(Lender, Arc<Account>)>,
    known: Option<Arc<Keys>>,
}

/// What one lender has lent.
struct Account {
    lent: Mutex<Lent>,
    /// Held by who asks for others.
    asking: Mutex<()>,
}

#[derive(Clone)]
struct Lent {
    keys: Arc<Keys>,
    /// Without one they are lent for good.
    until: Option<SystemTime>,
    /// When to ask again.
    renew: Option<SystemTime>,
    /// When there was last an answer, or none.
    asked: SystemTime,
    /// The store does not take them.
    is_refused: bool,
    /// Why there are no others.
    problem: Option<String>,
}

/// Nobody is asked more often than that.
const PAUSE: Duration = Duration::from_secs(1);

impl Lent {
    /// How long it is until somebody may ask again.
    fn pause(&self, now: SystemTime) -> Duration {
        PAUSE.saturating_sub(now.duration_since(self.asked).unwrap_or_default())
    }
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
                lent = Some((lender.clone(), account(lender, settings)?));
            }
        }
        Ok(Signer { settings: settings.clone(), lent, known })
    }

    /// The keys to sign with now; `None` for a public bucket. When they are due, one thread asks for others, and the rest
    /// sign with those from before meanwhile; when the store refuses them, all wait for it.
    pub fn keys(&self) -> Option<Arc<Keys>> {
        let Some((lender, account)) = &self.lent else { return self.known.clone() };
        let (before, now) = (lock(&account.lent).clone(), SystemTime::now());
        let asking = if before.is_refused {
            Some(lock(&account.asking))
        } else if before.renew.is_some_and(|renew| renew <= now) {
            account.asking.try_lock().ok()
        } else {
            None
        };
        // Others may have come while this thread waited.
        let is_same = lock(&account.lent).asked == before.asked;
        if asking.is_some() && is_same && before.pause(now).is_zero() {
            let anew = borrow(lender, &self.settings, 1);
            let mut lent = lock(&account.lent);
            match anew {
                Ok(anew) => *lent = anew,
                Err(error) => {
                    tracing::warn!(%error, "no other keys can be had");
                    lent.asked = SystemTime::now();
                    // Soon enough for when they end.
                    let (later, end) = (lent.asked + 10 * PAUSE, lent.until.filter(|end| *end > lent.asked));
                    lent.renew = lent.renew.map(|_| end.map_or(later, |end| end.min(later)));
                    lent.problem = Some(error.message().to_owned());
                }
            }
        }
        Some(lock(&account.lent).keys.clone())
    }

    /// The store does not know the keys that it was shown. In how long there may be others, when they are lent.
    pub fn refused(&self) -> Option<Duration> {
        let (_, account) = self.lent.as_ref()?;
        let mut lent = lock(&account.lent);
        let pause = lent.pause(SystemTime::now());
        // Those that were lent a moment ago may have come after the ones that the store did not know.
        lent.is_refused |= pause.is_zero();
        Some(pause)
    }

    /// Until when what they sign is valid.
    pub fn until(&self) -> Option<SystemTime> {
        self.lent.as_ref().and_then(|(_, account)| lock(&account.lent).until)
    }

    /// Who lent the keys, and why there are no others, for messages.
    pub fn lender(&self) -> Option<String> {
        let (lender, account) = self.lent.as_ref()?;
        let problem = lock(&account.lent).problem.clone();
        Some(problem.map_or_else(|| lender.to_string(), |problem| format!("{lender}; {problem}")))
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("no thread panics with it")
}

/// The keys from before while they last, or new ones. Those that are lent for good are not kept: nothing would say that
/// there are others.
fn account(lender: &Lender, settings: &Settings) -> Result<Arc<Account>> {
    let lasts = |account: &Account| {
        let lent = lock(&account.lent);
        !lent.is_refused && lent.until.is_some_and(|until| until > SystemTime::now())
    };
    if let Some((_, account)) = lock(&LENT).iter().find(|(whose, account)| whose == lender && lasts(account)) {
        return Ok(account.clone());
    }
    let lent = Mutex::new(borrow(lender, settings, settings.max_attempts)?);
    let account = Arc::new(Account { lent, asking: Mutex::new(()) });
    let mut kept = lock(&LENT);
    kept.retain(|(whose, account)| whose != lender && lasts(account));
    kept.push((lender.clone(), account.clone()));
    Ok(account)
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
                http::tls_config(&settings.trust_of_lender(&endpoint))?,
                patience(settings),
                settings.proxies.clone(),
            );
            let what = lender.to_string();
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
            let tls = http::tls_config(&settings.trust_of_lender(&url))?;
            let client = Client::new(tls, patience(settings), Proxies::default());
            let what = lender.to_string();
            (ask(attempts, || answer(&client, &request, &what, of_agent))?, what)
        }
    };
    keys.session_token = keys.session_token.filter(|token| !token.is_empty());
    let until = until.as_deref().map(|until| {
        let wrong = |end| Error::load(format!("{what} are lent until \"{}\", which {end}", Excerpt(until)));
        let end = time(until).ok_or_else(|| wrong("is no time"))?;
        if end <= SystemTime::now() { Err(wrong("is over: are the clocks right?")) } else { Ok(end) }
    });
    let (until, now) = (until.transpose()?, SystemTime::now());
    // After most of the time, so that there is some left in which to ask more than once.
    let renew = until.map(|until| now + until.duration_since(now).unwrap_or_default() * 4 / 5);
    Ok(Lent { keys: Arc::new(keys), until, renew, asked: now, is_refused: false, problem: None })
}

/// An answer is small: it has come within the time for silence, or it does not come.
fn patience(settings: &Settings) -> Patience {
    Patience { whole: settings.connect_timeout + settings.read_timeout, ..settings.patience() }
}

/// A time of RFC 3339, with any offset.
fn time(text: &str) -> Option<SystemTime> {
    let (local, offset) = match text.rfind(['+', '-']).filter(|at| text[..*at].contains('T')) {
        Some(at) => text.split_at(at),
        None => (text, "+0000"),
    };
    let digits = offset[1..].replace(':', "");
    let (hours, minutes) = (digits.get(..2)?.parse::<u64>().ok()?, digits.get(2..)?.parse::<u64>().ok()?);
    let offset_seconds = Duration::from_secs((hours * 60 + minutes) * 60);
    let local = humantime::parse_rfc3339_weak(local).ok()?;
    if offset.starts_with('+') { local.checked_sub(offset_seconds) } else { local.checked_add(offset_seconds) }
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
    read: fn(&str) -> Result<Answer, Said>,
) -> Result<Answer, Trouble> {
    let trouble = |text: &str, retry| Trouble { error: Error::load(format!("cannot have {what}: {text}")), retry };
    let failed = |failure: &Failure| trouble(&failure.to_string(), failure.may_pass().then_some(Duration::ZERO));
    let mut response: Response<'_> = client.send(request).map_err(|failure| failed(&failure))?;
    let body = response.body.read_all(MAX_ANSWER_BYTES).map_err(|failure| failed(&failure))?;
    let (status, body) = (response.status, String::from_utf8_lossy(&body));
    read(&body).map_err(|Said { text, may_pass }| {
        let retry = response.retry().or(may_pass.then_some(Duration::ZERO));
        trouble(&format!("status {status}: {}{}", Excerpt(&text), response.through), retry)
    })
}

/// Why there are no keys.
struct Said {
    text: String,
    may_pass: bool,
}

fn of_token_service(text: &str) -> Result<Answer, Said> {
    /// What AWS answers with status 400 when the same may work a little later.
    const PASSING: [&str; 5] =
        ["Throttling", "ThrottlingException", "RequestLimitExceeded", "IDPCommunicationError", "RequestTimeout"];
    let refused = || {
        let said = xml::error(text);
        let may_pass = PASSING.contains(&said.code.as_str());
        let text = match said.code.as_str() {
            "" => "the answer is no token service's".to_owned(),
            code => format!("{code} {}", said.message),
        };
        Said { text, may_pass }
    };
    xml::lent(text).map(|(keys, until)| Answer { keys, until }).ok_or_else(refused)
}

fn of_agent(text: &str) -> Result<Answer, Said> {
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
    struct Refusal {
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
            let Refusal { code, message } = serde_json::from_str(text).unwrap_or_default();
            let said = format!("{code} {message}").trim().to_owned();
            let text = if said.is_empty() { "the answer has no keys".to_owned() } else { said };
            Err(Said { text, may_pass: false })
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
    fn times_have_an_offset() {
        let at = |text| time(text).map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(at("2023-11-14T22:13:20Z"), Some(1_700_000_000));
        assert_eq!(at("2023-11-14T22:13:20+00:00"), Some(1_700_000_000));
        assert_eq!(at("2023-11-15T00:13:20+0200"), Some(1_700_000_000));
        assert_eq!(at("2023-11-14T17:13:20-05:00"), Some(1_700_000_000));
        assert_eq!([at("soon"), at("2023-11-14"), at(""), at("T+")], [None; 4]);
    }

    #[test]
    fn keys_that_the_store_does_not_take_are_asked_for_again() {
        let signer = Signer::new(&agent(&[3600, 3600])).unwrap();
        let key = || signer.keys().unwrap().access_key_id.clone();
        let pause = signer.refused().unwrap();
        assert_eq!(key(), "key 0", "they have just been lent");
        thread::sleep(pause);
        assert_eq!(signer.refused(), Some(Duration::ZERO));
        assert_eq!(key(), "key 1");
        thread::sleep(PAUSE);
        assert_eq!(signer.refused(), Some(Duration::ZERO));
        assert_eq!(key(), "key 1", "there are no others");
        assert!(signer.lender().unwrap().contains("cannot have credentials from the agent"));
    }

    #[test]
    fn answers_that_make_no_sense_are_told() {
        let said = |answer: Result<Answer, Said>| answer.err().map(|said| (said.text, said.may_pass)).unwrap();
        assert_eq!(said(of_agent("<html>")), ("the answer has no keys".to_owned(), false));
        assert_eq!(said(of_agent(r#"{"code": "AccessDenied"}"#)), ("AccessDenied".to_owned(), false));
        assert_eq!(said(of_token_service("<html>")), ("the answer is no token service's".to_owned(), false));
        let error = "<ErrorResponse><Error><Code>Throttling</Code><Message>slow</Message></Error></ErrorResponse>";
        assert_eq!(said(of_token_service(error)), ("Throttling slow".to_owned(), true));
        let elsewhere = Url::parse("http://agent.example/").unwrap();
        assert!(check_agent(&elsewhere).unwrap_err().message().contains("neither https"));
    }
}
