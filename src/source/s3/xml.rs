//! Answers in XML: lists of objects, keys that are lent, and errors.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::credentials::Keys;

/// One page of `ListObjectsV2`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub objects: Vec<Object>,
    /// Where the next page begins.
    pub next: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    pub key: String,
    pub bytes: u64,
    pub etag: String,
}

/// What an error says of itself; empty where it says nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub code: String,
    pub message: String,
}

/// A page, unless this is something else.
pub fn page(text: &str) -> Option<Page> {
    let mut page = Page::default();
    let mut is_page = false;
    walk(text, |path, value| {
        is_page |= path.first() == Some(&"ListBucketResult");
        match (path, value) {
            ([_, "Contents"], None) => page.objects.push(Object::default()),
            ([_, "NextContinuationToken"], Some(value)) => page.next = Some(value.to_owned()),
            ([_, "Contents", field], Some(value)) => {
                let object = page.objects.last_mut()?;
                match *field {
                    "Key" => value.clone_into(&mut object.key),
                    "Size" => object.bytes = value.parse().ok()?,
                    "ETag" => value.clone_into(&mut object.etag),
                    _ => {}
                }
            }
            _ => {}
        }
        Some(())
    })?;
    is_page.then_some(page)
}

/// The error in an answer, as far as there is one.
pub fn error(text: &str) -> Said {
    let mut said = Said::default();
    let _ = walk(text, |path, value| {
        match (path, value) {
            ([.., "Error", "Code"], Some(value)) => value.clone_into(&mut said.code),
            ([.., "Error", "Message"], Some(value)) => value.clone_into(&mut said.message),
            _ => {}
        }
        Some(())
    });
    said
}

/// The keys that a token service lends and until when, unless this is something else.
pub fn lent(text: &str) -> Option<(Keys, Option<String>)> {
    let [mut id, mut secret, mut token, mut until] = [const { None }; 4];
    walk(text, |path, value| {
        if let ([_, _, "Credentials", field], Some(value)) = (path, value) {
            let field = match *field {
                "AccessKeyId" => &mut id,
                "SecretAccessKey" => &mut secret,
                "SessionToken" => &mut token,
                "Expiration" => &mut until,
                _ => return Some(()),
            };
            *field = Some(value.to_owned());
        }
        Some(())
    })?;
    Some((Keys { access_key_id: id?, secret_access_key: secret?, session_token: token }, until))
}

/// Calls for each element as it opens, and for each that holds text alone as it closes, with that.
fn walk(text: &str, mut visit: impl FnMut(&[&str], Option<&str>) -> Option<()>) -> Option<()> {
    const MAX_DEPTH: usize = 16;
    let mut reader = Reader::from_str(text);
    let mut path: Vec<String> = Vec::new();
    // Of the element that opened last, until it or one around it closes.
    let mut content = None;
    let mut see = |path: &[String], content: Option<&str>| {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        visit(&names, content)
    };
    loop {
        match reader.read_event().ok()? {
            Event::Start(_) if path.len() == MAX_DEPTH => return None,
            Event::Start(element) => {
                path.push(element.local_name().into_inner().to_owned());
                content = Some(String::new());
                see(&path, None)?;
            }
            Event::Text(part) => content.iter_mut().for_each(|content| *content += &part.xml10_content()),
            Event::CData(part) => content.iter_mut().for_each(|content| *content += &part.xml10_content()),
            Event::GeneralRef(reference) => {
                let name = reference.xml10_content();
                let text = match reference.resolve_char_ref().ok()? {
                    Some(letter) => letter.to_string(),
                    None => quick_xml::escape::resolve_predefined_entity(&name)?.to_owned(),
                };
                content.iter_mut().for_each(|content| *content += &text);
            }
            Event::End(_) => {
                if let Some(content) = content.take() {
                    see(&path, Some(&content))?;
                }
                path.pop();
            }
            Event::Eof => return Some(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
            <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><IsTruncated>true</IsTruncated>
            <Contents><Key>a &amp; b/&#252;&#xd;</Key><LastModified>x</LastModified><ETag>&#34;e-1&#34;</ETag><Size>12</Size>
            <Owner><ID>o</ID></Owner></Contents><Contents><Key>c</Key><Size>0</Size><ETag>"f"</ETag></Contents>
            <NextContinuationToken>t</NextContinuationToken><EncodingType/></ListBucketResult>"#;
        let object = |key: &str, bytes, etag: &str| Object { key: key.into(), bytes, etag: etag.into() };
        let objects = vec![object("a & b/ü\r", 12, "\"e-1\""), object("c", 0, "\"f\"")];
        assert_eq!(page(text).unwrap(), Page { objects, next: Some("t".into()) });
    }

    #[test]
    fn what_is_no_list_is_none() {
        for text in ["", "<html><body>hello</body></html>", "<ListBucketResult><Contents><Size>x</Size></Contents>"] {
            assert_eq!(page(text), None, "{text}");
        }
        let said = error("<Error><Code>NoSuchKey</Code><Message>gone &lt;&gt;</Message><Key>k</Key></Error>");
        assert_eq!((said.code.as_str(), said.message.as_str()), ("NoSuchKey", "gone <>"));
        assert_eq!(error("plain text"), Said::default());
    }

    #[test]
    fn keys_are_read() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
            <AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
            <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>a</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
            <Expiration>2026-11-21T17:00:00Z</Expiration><SessionToken>t</SessionToken></Credentials>
            <SubjectFromWebIdentityToken>x</SubjectFromWebIdentityToken></AssumeRoleWithWebIdentityResult>
            <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>"#;
        let (keys, until) = lent(text).unwrap();
        assert_eq!((keys.access_key_id.as_str(), keys.secret_access_key.as_str()), ("a", "s"));
        assert_eq!((keys.session_token.as_deref(), until.as_deref()), (Some("t"), Some("2026-11-21T17:00:00Z")));
        let text =
            "<ErrorResponse><Error><Type/><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>";
        assert!(lent(text).is_none());
        assert_eq!(error(text).code, "AccessDenied");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = page(&format!("<ListBucketResult>{text}"));
            let _ = lent(&format!("<A><B><Credentials>{text}"));
        }
    }
}
