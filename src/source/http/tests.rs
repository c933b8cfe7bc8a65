//! The client against servers that follow a script.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use super::*;

/// What is answered on each connection, request by request.
type Scripts = &'static [&'static [&'static str]];

/// Serves each connection its script: for each request an answer, then it closes.
fn server(scripts: Scripts) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}/x?y", listener.local_addr().unwrap())).unwrap();
    thread::spawn(move || {
        for answers in scripts {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in *answers {
                let mut seen = Vec::new();
                let mut byte = [0];
                while !seen.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    seen.push(byte[0]);
                }
                assert!(seen.starts_with(b"GET /x?y HTTP/1.1\r\nHost: 127.0.0.1:"), "{seen:?}");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    url
}

fn client() -> Client {
    let patience =
        Patience { connect: Duration::from_secs(5), silence: Duration::from_millis(500), whole: Duration::MAX };
    Client::new(tls_config(&Trust::Nobody).unwrap(), patience, Proxies::default())
}

fn get(client: &Client, url: &Url) -> Result<(u16, Vec<u8>), Failure> {
    let mut response =
        client.send(&Request { method: "GET", url, headers: &[("X-A", "b\r\nc: d".to_owned())], body: "" })?;
    let body = response.body.read_all(1 << 20)?;
    Ok((response.status, body))
}

#[test]
fn bodies_end_where_their_framing_says() {
    let url = server(&[&[
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 206 Partial\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: 1\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.0 404 Not Found\r\n\r\nuntil the end",
    ]]);
    let client = client(); // all over one connection
    assert_eq!(get(&client, &url).unwrap(), (200, b"abc".to_vec()));
    assert_eq!(get(&client, &url).unwrap(), (206, b"abc".to_vec()));
    assert_eq!(get(&client, &url).unwrap(), (204, Vec::new()));
    assert_eq!(get(&client, &url).unwrap(), (404, b"until the end".to_vec()));
}

#[test]
fn a_connection_that_was_closed_in_the_meantime_is_replaced() {
    let url = server(&[
        &["HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"],
        &["HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb"],
    ]);
    let client = client();
    assert_eq!(get(&client, &url).unwrap().1, b"a");
    thread::sleep(Duration::from_millis(50));
    assert_eq!(get(&client, &url).unwrap().1, b"b");
}

#[test]
fn each_failure_is_told_from_the_others() {
    let cases: [(Scripts, &str); 5] = [
        (&[&["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"]], "Closed"),
        (&[&["SSH-2.0-OpenSSH\r\n\r\n"]], "Protocol"),
        (&[&["HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"]], "Protocol"),
        (&[&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]], "Protocol"),
        (&[&["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", ""]], "Silence"),
    ];
    for (script, name) in cases {
        let failure = get(&client(), &server(script)).unwrap_err();
        assert!(format!("{failure:?}").starts_with(name), "{script:?}: {failure:?}");
    }
    let nobody = Url::parse("http://127.0.0.1:1/x?y").unwrap();
    assert!(matches!(get(&client(), &nobody), Err(Failure::Connect(_))));
    let nowhere = Url::parse("http://host.invalid/x?y").unwrap();
    assert!(matches!(get(&client(), &nowhere), Err(Failure::Name(_))));
}

#[test]
fn who_waits_can_be_stopped() {
    let url = server(&[&["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", ""]]);
    let patience = Patience { connect: Duration::from_secs(5), silence: Duration::from_mins(1), whole: Duration::MAX };
    let client = Arc::new(Client::new(tls_config(&Trust::Nobody).unwrap(), patience, Proxies::default()));
    let waiting = thread::spawn({
        let client = client.clone();
        move || get(&client, &url)
    });
    thread::sleep(Duration::from_millis(50));
    client.stop();
    assert!(matches!(waiting.join().unwrap(), Err(Failure::Stopped)));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(512))]

    #[test]
    fn heads_of_any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
        let _ = connection::parse(&[b"HTTP/1.1 200 OK\r\n".as_slice(), &bytes].concat());
    }
}
