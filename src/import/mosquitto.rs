//! The `acl_file` of mosquitto.
//!
//! In mosquitto, denies of a user's own topics come before that user's allows, and both before the patterns.
//! That a deny beats every allow is therefore the same for `topic deny`, and another thing for `pattern deny`.

use super::{Draft, client, quote, topic};
use crate::config::{Place, Report};

pub(super) const HEAD: &str = "\
Imported from an acl_file of mosquitto.

* Names of users are compared with the principal, which is who the client was found to be.
* mosquitto lets a client subscribe to anything and withholds the messages; here, a subscription that reaches
  further than `read` does is refused.
* A client whose identifier (or name) has `/`, `+` or `#` in it matches no line with %c (or %u). mosquitto keeps
  all patterns from clients with `+` or `#` in either, and none from those with `/`.
";

/// What is kept from line to line.
struct Reader<'a> {
    place: &'a Place,
    report: &'a Report,
    /// The line that is read, from 1.
    number: usize,
    /// The user that topics belong to; `None` before the first, where they are for anonymous clients.
    user: Option<String>,
    drafts: Vec<Draft>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Deny,
    Read,
    ReadWrite,
    Write,
}

/// Reads all lines; records those that cannot be kept exactly.
pub(super) fn read(text: &str, place: &Place, report: &Report) -> Vec<Draft> {
    let connect = Draft {
        origin: "not in the file: mosquitto lets everybody connect who may log in".into(),
        sid: "connect".into(),
        principals: vec!["*".into()],
        actions: vec!["connect"],
        ..Draft::default()
    };
    let mut reader = Reader { place, report, number: 0, user: None, drafts: vec![connect] };
    for line in text.lines() {
        reader.number += 1;
        if let Err(message) = reader.line(line.trim_end().trim_start_matches(' ')) {
            let place = Place { line: Some(reader.number), ..reader.place.clone() };
            reader.report.problem(&place, message);
        }
    }
    reader.drafts
}

impl Reader<'_> {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (keyword, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match keyword {
            "user" if rest.is_empty() => Err("`user` without a name".into()),
            "user" => {
                self.user = Some(client(rest)?);
                Ok(())
            }
            "topic" => {
                let (access, filter) = access(rest)?;
                let resource = topic(without_variables(filter)?)?;
                self.add(line, access, resource, self.user.clone());
                Ok(())
            }
            "pattern" => {
                let (access, filter) = access(rest)?;
                if access == Access::Deny {
                    return Err("a `topic` beats a `pattern deny`, but no allow beats a deny of mgate: \
                                write `topic deny` for each user"
                        .into());
                }
                let resource = topic(&with_variables(without_variables(filter)?)?)?;
                self.add(line, access, resource, Some("*".into()));
                Ok(())
            }
            _ => Err(format!("\"{keyword}\" is none of topic, user and pattern")),
        }
    }

    fn add(&mut self, line: &str, access: Access, resource: String, who: Option<String>) {
        let number = self.number;
        let nobody = format!("string_equals = {{ principal = {} }}", quote(""));
        self.drafts.push(Draft {
            origin: format!("line {number}: {line}"),
            sid: format!("line-{number}"),
            denies: access == Access::Deny,
            conditions: if who.is_none() { vec![nobody] } else { Vec::new() },
            principals: vec![who.unwrap_or_else(|| "*".into())],
            actions: access.actions().to_vec(),
            resources: vec![resource],
        });
    }
}

impl Access {
    fn actions(self) -> &'static [&'static str] {
        match self {
            Self::Read => &["subscribe"],
            Self::Write => &["publish"],
            Self::Deny | Self::ReadWrite => &["publish", "subscribe"],
        }
    }
}

/// Splits off the access, which stands there if something follows the first word.
fn access(rest: &str) -> Result<(Access, &str), String> {
    if rest.is_empty() {
        return Err("no topic".into());
    }
    let Some((word, filter)) = rest.split_once(' ') else { return Ok((Access::ReadWrite, rest)) };
    let access = match word {
        "deny" => Access::Deny,
        "read" => Access::Read,
        "readwrite" => Access::ReadWrite,
        "write" => Access::Write,
        _ => return Err(format!("\"{word}\" is none of read, write, readwrite and deny")),
    };
    Ok((access, filter.trim_start()))
}

/// What stands for itself in mosquitto must not become a variable of mgate.
fn without_variables(filter: &str) -> Result<&str, String> {
    if filter.contains("${") { Err("a topic of mgate cannot have `${` in it".into()) } else { Ok(filter) }
}

/// Writes `%c` and `%u` as variables.
fn with_variables(filter: &str) -> Result<String, String> {
    let level = |level| match level {
        "%c" => Ok("${client_id}"),
        "%u" => Ok("${principal}"),
        level if level.contains("%c") || level.contains("%u") => {
            Err(format!("\"{level}\": %c and %u must be a whole level"))
        }
        level => Ok(level),
    };
    let levels: Vec<&str> = filter.split('/').map(level).collect::<Result<_, _>>()?;
    Ok(levels.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{may, refusals, rules};
    use super::super::{Source, import};

    #[test]
    fn rights_are_those_of_the_file() {
        let rules = rules(Source::Mosquitto, ACL);
        for (who, action, resource, expected) in [
            ("", "subscribe", "$SYS/#", true),
            ("", "deliver", "$SYS/broker/uptime", true),
            ("", "publish", "$SYS/broker/uptime", false),
            ("ada", "subscribe", "$SYS/#", false),
            ("ada", "publish", "rooms/1/light", true),
            ("ada", "will", "rooms/1/light", true),
            ("ada", "subscribe", "rooms/+/light", true),
            ("ada", "subscribe", "$share/g/rooms/+/light", true),
            ("ada", "publish", "rooms/vault/light", false),
            ("ada", "subscribe", "rooms/vault/light", false),
            ("ada", "deliver", "rooms/vault/light", false),
            ("ada", "publish", "out of/office", true),
            ("ada", "subscribe", "out of/office", false),
            ("bob", "publish", "rooms/1/light", false),
            ("bob", "deliver", "rooms/1", true),
            ("bob", "publish", "rooms/1", true),
            ("bob", "publish", "sensors/id-1/x", true),
            ("bob", "publish", "sensors/id-2/x", false),
            ("bob", "deliver", "users/bob", true),
            ("bob", "deliver", "users/ada", false),
            ("", "publish", "sensors/id-1/x", true),
            ("", "deliver", "users/", false),
            ("ada", "connect", "anything", true),
        ] {
            assert_eq!(may(&rules, who, action, resource), expected, "{who} {action} {resource}");
        }
    }

    #[test]
    fn file_without_lines_allows_nothing_but_to_connect() {
        let rules = rules(Source::Mosquitto, "");
        assert!(may(&rules, "ada", "connect", "a"));
        assert!(!may(&rules, "ada", "publish", "a") && !may(&rules, "", "subscribe", "#"));
    }

    #[test]
    fn original_line_stands_above_its_statement() {
        let policy = import(Source::Mosquitto, "acl".as_ref(), ACL, &[]).unwrap();
        assert!(policy.contains("\n# line 5: topic rooms/#\n[[statements]]\nsid = \"line-5\"\n"), "{policy}");
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_its_line() {
        for (line, expected) in [
            ("pattern deny a/%c", "a `topic` beats a `pattern deny`"),
            ("pattern read dev-%c/a", "\"dev-%c\": %c and %u must be a whole level"),
            ("pattern read a/%u%c", "\"%u%c\": %c and %u must be a whole level"),
            ("topic read a/${client_id}", "a topic of mgate cannot have `${` in it"),
            ("pattern read a/${client_id}/%c", "a topic of mgate cannot have `${` in it"),
            ("topic read $share/g/a", "a topic has no `$share/<group>/`"),
            ("topic write a/*", "`*` may only end a client id"),
            ("topic write a/#/b", "wildcard or U+0000"),
            ("topic a b", "\"a\" is none of read, write, readwrite and deny"),
            ("topic", "no topic"),
            ("user", "`user` without a name"),
            ("user a*", "`*` stands alone in a principal"),
            ("topics read a", "\"topics\" is none of topic, user and pattern"),
            ("topic\tread\ta", "is none of topic, user and pattern"),
        ] {
            let found = refusals(Source::Mosquitto, &format!("# rules\n{line}\ntopic read good\n"));
            assert!(found.len() == 1 && found[0].starts_with("rules:2: "), "{line}: {found:?}");
            assert!(found[0].contains(expected), "{line}: {found:?}");
        }
    }

    const ACL: &str = "\
# anonymous clients
topic read $SYS/#

user ada
topic rooms/#
topic deny rooms/vault/#
topic   write   out of/office
pattern write sensors/%c/#
user bob
topic readwrite rooms/+
pattern read users/%u
";
}
