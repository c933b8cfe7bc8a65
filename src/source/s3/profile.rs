//! AWS's files of profiles, `~/.aws/credentials` and `~/.aws/config`. Source: AWS SDKs and Tools Reference Guide,
//! "Shared config and credentials files".

use std::collections::HashMap;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::source::Env;

/// What both files say of one profile.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Profile {
    name: String,
    fields: HashMap<String, String>,
}

impl Profile {
    /// The one that the environment names, or `default`; the credentials file comes first.
    ///
    /// # Errors
    /// When a file cannot be read, or none has the profile that is named.
    pub fn from_env(env: Env<'_>) -> Result<Profile> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let named = set("AWS_DEFAULT_PROFILE").or_else(|| set("AWS_PROFILE"));
        let file = |variable: &str, usual: &str| {
            let home = set("HOME").map(PathBuf::from);
            let Some(path) = set(variable) else {
                // Nobody asked for these: what cannot be read, as by another user than the home's, is not there.
                let own = home.map(|home| home.join(".aws").join(usual));
                return Ok(own.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default());
            };
            let path = match (path.strip_prefix("~/"), home) {
                (Some(below), Some(home)) => home.join(below),
                _ => PathBuf::from(path),
            };
            match std::fs::read_to_string(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
                read => read.map_err(|error| Error::load(format!("{variable} {}: {error}", path.display()))),
            }
        };
        let credentials = file("AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
        let config = file("AWS_CONFIG_FILE", "config")?;
        let name = named.clone().unwrap_or_else(|| "default".to_owned());
        match (Profile::read(&name, &credentials, &config), named) {
            (Some(profile), _) => Ok(profile),
            (None, None) => Ok(Profile::default()),
            (None, Some(name)) => Err(Error::load(format!(
                "AWS_PROFILE: there is no profile \"{name}\" in AWS_SHARED_CREDENTIALS_FILE or AWS_CONFIG_FILE"
            ))),
        }
    }

    fn read(name: &str, credentials: &str, config: &str) -> Option<Profile> {
        let own = section(credentials, &[name.to_owned()]);
        let others = section(config, &[name.to_owned(), format!("profile {name}")]);
        if own.is_none() && others.is_none() {
            return None;
        }
        let (mut fields, own) = (others.unwrap_or_default(), own.unwrap_or_default());
        if own.contains_key("aws_access_key_id") {
            // They belong to other keys.
            fields.remove("aws_secret_access_key");
            fields.remove("aws_session_token");
        }
        fields.extend(own);
        Some(Profile { name: name.to_owned(), fields })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn get(&self, field: &str) -> Option<String> {
        self.fields.get(field).filter(|value| !value.is_empty()).cloned()
    }
}

/// The fields of the section that has one of these names.
fn section(text: &str, names: &[String]) -> Option<HashMap<String, String>> {
    let (mut is_wanted, mut fields) = (false, None::<HashMap<String, String>>);
    for line in text.lines() {
        let is_nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if let Some(title) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let title = title.split_whitespace().map(|word| word.trim_matches('"')).collect::<Vec<_>>().join(" ");
            is_wanted = names.contains(&title);
            if is_wanted {
                fields.get_or_insert_default();
            }
        } else if is_wanted
            && !is_nested
            && !line.starts_with(['#', ';'])
            && let (Some((field, value)), Some(fields)) = (line.split_once('='), &mut fields)
        {
            fields.insert(field.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "\
        # keys\n[default]\naws_access_key_id = a\naws_secret_access_key=s/=+\n\n[team]\nAWS_ACCESS_KEY_ID=b\n";
    const CONFIG: &str = "\
        [default]\nregion = eu\naws_access_key_id = older\naws_session_token = older\n[profile team]\ns3 =\n  region = nested\n; region = x\n\
        region=us\n[ profile  \"two\" ]\nregion = two\n";

    #[test]
    fn both_files_say_what_a_profile_is() {
        let read = |name| Profile::read(name, CREDENTIALS, CONFIG);
        let default = read("default").unwrap();
        assert_eq!(default.get("region").as_deref(), Some("eu"));
        assert_eq!(default.get("aws_access_key_id").as_deref(), Some("a"));
        assert_eq!(default.get("aws_secret_access_key").as_deref(), Some("s/=+"));
        assert_eq!(default.get("aws_session_token"), None);
        let team = read("team").unwrap();
        let found = (team.get("region"), team.get("aws_access_key_id"), team.get("s3"));
        assert_eq!(found, (Some("us".to_owned()), Some("b".to_owned()), None));
        assert_eq!(read("two").unwrap().get("region").as_deref(), Some("two"));
        assert_eq!(read("none"), None);
    }

    #[test]
    fn only_a_profile_that_is_named_has_to_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap().to_owned();
        let read = |vars: &[(&str, &str)]| {
            Profile::from_env(&|name| vars.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(read(&[]).unwrap(), Profile::default());
        assert_eq!(read(&[("HOME", &home)]).unwrap(), Profile::default());
        assert_eq!(read(&[("HOME", "/dev/null")]).unwrap(), Profile::default());
        assert!(read(&[("HOME", &home), ("AWS_PROFILE", "x")]).unwrap_err().message().contains("no profile \"x\""));
        std::fs::create_dir(folder.path().join(".aws")).unwrap();
        std::fs::write(folder.path().join(".aws/config"), CONFIG).unwrap();
        let named = [("HOME", home.as_str()), ("AWS_DEFAULT_PROFILE", "two")];
        assert_eq!(read(&named).unwrap().get("region").as_deref(), Some("two"));
        let from_home = [named[0], ("AWS_PROFILE", "two"), ("AWS_CONFIG_FILE", "~/.aws/config")];
        assert_eq!(read(&from_home).unwrap().get("region").as_deref(), Some("two"));
        let wrong = read(&[("AWS_CONFIG_FILE", &home)]).unwrap_err();
        assert!(wrong.message().contains(&home), "{wrong}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text: String) {
            let _ = section(&format!("[x]\n{text}"), &["x".to_owned()]);
        }
    }
}
