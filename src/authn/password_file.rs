//! The file of the `password` authenticator: users, the hashes of their passwords, their groups and claims.
//!
//! ```toml
//! [users.dev-1]
//! password = "$argon2id$v=19$m=19456,t=2,p=1$..."
//! groups   = ["sensors"]
//! claims   = { channel = "42" }
//! ```

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use mgate_policies::Attributes;
use ring::rand::{SecureRandom, SystemRandom};
use toml_edit::{Array, Document, DocumentMut, Item, Table, TableLike, TomlError, Value};

use super::is_safe_identity;

/// All users of one file.
#[derive(Debug)]
pub struct PasswordFile {
    users: HashMap<Box<str>, User>,
    dummy_hash: String,
}

impl PasswordFile {
    /// Reads the text of a file; `path` is only for the errors, of which all are found at once.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Vec<FileError>> {
        let place = Place { path, text };
        let document = Document::parse(text).map_err(|error| vec![place.syntax_error(&error)])?;
        let mut reader = Reader { place, costliest: None, errors: Vec::new() };
        let users = reader.users(document.as_table());
        if !reader.errors.is_empty() {
            return Err(reader.errors);
        }
        let dummy_hash = dummy_hash(&reader.costliest.unwrap_or(Params::DEFAULT));
        Ok(Self { users, dummy_hash })
    }

    /// The user of this name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is no user at all.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// A hash of no password, as costly to verify as the costliest of the file: verified against for unknown
    /// users, so that time does not tell who is known.
    pub fn dummy_hash(&self) -> &str {
        &self.dummy_hash
    }
}

/// What the file says of one user.
#[derive(Clone)]
pub struct User {
    /// The hash of the password, as a PHC string.
    pub hash: Box<str>,
    /// The groups that the user is in.
    pub groups: Vec<Box<str>>,
    /// The claims; each name begins with `claims.`.
    pub claims: Attributes,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// The key with all that it is in; empty where the text is no TOML.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

/// A file that is being changed; what is not changed stays as it was written, comments included.
pub struct EditablePasswordFile(DocumentMut);

impl EditablePasswordFile {
    /// Takes the text of a file; `path` is only for the error.
    pub fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        let place = Place { path, text };
        let document = Document::parse(text).map_err(|error| place.syntax_error(&error))?;
        match document.as_table().get(USERS) {
            Some(users) if !users.is_table_like() => {
                Err(place.error(users.span(), USERS.into(), NOT_A_TABLE.into()))
            }
            _ => Ok(Self(document.into_mut())),
        }
    }

    /// Sets a user's password, and its groups where there are any; what else it has stays.
    pub fn upsert(&mut self, name: &str, hash: &str, groups: &[String]) {
        let users = self.0.entry(USERS).or_insert_with(|| implicit_table().into());
        let Some(users) = users.as_table_like_mut() else { return };
        if !users.get(name).is_some_and(Item::is_table_like) {
            users.insert(name, Table::new().into());
        }
        let Some(user) = users.get_mut(name).and_then(Item::as_table_like_mut) else { return };
        set(user, PASSWORD, hash.into());
        if !groups.is_empty() {
            set(user, GROUPS, groups.iter().collect::<Array>().into());
        }
    }

    /// Removes a user; says whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let users = self.0.get_mut(USERS).and_then(Item::as_table_like_mut);
        users.is_some_and(|users| users.remove(name).is_some())
    }

    /// Whether there is a user of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.get(USERS).and_then(|users| users.get(name)).is_some()
    }
}

/// Adds or changes one user in the text of a file and keeps the rest.
pub fn upsert(text: &str, path: &Path, name: &str, hash: &str) -> Result<String, FileError> {
    let mut file = EditablePasswordFile::parse(text, path)?;
    file.upsert(name, hash, &[]);
    Ok(file.to_string())
}

/// Hashes a password with argon2id (RFC 9106) and a new salt; fails only where there are no random numbers.
pub fn hash_password(password: &[u8]) -> Result<String, argon2::password_hash::Error> {
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|_| argon2::password_hash::Error::Crypto)?;
    let hash = Argon2::default().hash_password_with_salt(password, &salt)?;
    Ok(hash.to_string())
}

/// Whether `password` is the one of `hash`; takes tens of milliseconds and much memory by design.
pub fn verify(hash: &str, password: &[u8]) -> bool {
    let Ok((hash, _)) = parse_hash(hash) else { return false };
    Argon2::default().verify_password(password, &hash).is_ok()
}

/// Whether a user may have this name: it must be fit for one level of a topic.
pub fn is_user_name(name: &str) -> bool {
    is_safe_identity(name)
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut user = f.debug_struct("User");
        user.field("groups", &self.groups).field("claims", &self.claims).finish_non_exhaustive()
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.path.display(), self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for FileError {}

impl fmt::Display for EditablePasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    fn error(self, span: Option<Range<usize>>, key: String, message: String) -> FileError {
        let before = self.text.get(..span.map_or(0, |span| span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        FileError { path: self.path.into(), line, key, message }
    }

    /// Without the excerpt that the parser would show: it could hold a hash.
    fn syntax_error(self, error: &TomlError) -> FileError {
        self.error(error.span(), String::new(), error.message().lines().collect::<Vec<_>>().join(", "))
    }
}

struct Reader<'a> {
    place: Place<'a>,
    costliest: Option<Params>,
    errors: Vec<FileError>,
}

impl Reader<'_> {
    fn users(&mut self, root: &Table) -> HashMap<Box<str>, User> {
        self.refuse_unknown("", root, &[USERS]);
        let Some(users) = root.get(USERS) else { return HashMap::new() };
        let Some(users) = self.table(USERS, users) else { return HashMap::new() };
        users.iter().map(|(name, item)| (name.into(), self.user(users, name, item))).collect()
    }

    /// What cannot be read is left empty: with an error found, nobody sees it.
    fn user(&mut self, users: &dyn TableLike, name: &str, item: &Item) -> User {
        let path = join(USERS, name);
        let mut user = User { hash: Box::default(), groups: Vec::new(), claims: Attributes::default() };
        if !is_user_name(name) {
            let span = users.key(name).and_then(toml_edit::Key::span);
            self.error(span, &path, "a user's name must not be empty or hold '/', '+', '#' or U+0000");
        }
        let Some(table) = self.table(&path, item) else { return user };
        self.refuse_unknown(&path, table, &[PASSWORD, GROUPS, CLAIMS]);
        let header = users.key(name).and_then(toml_edit::Key::span);
        user.hash = self.hash(&join(&path, PASSWORD), table.get(PASSWORD), header);
        if let Some(groups) = table.get(GROUPS) {
            user.groups = self.texts(&join(&path, GROUPS), groups);
        }
        if let Some(claims) = table.get(CLAIMS) {
            user.claims = self.claims(&join(&path, CLAIMS), claims);
        }
        user
    }

    fn hash(&mut self, path: &str, item: Option<&Item>, header: Option<Range<usize>>) -> Box<str> {
        let Some(item) = item else {
            self.error(header, path, "missing");
            return Box::default();
        };
        match item.as_str().ok_or("not a string").and_then(|text| Ok((text, parse_hash(text)?.1))) {
            Ok((text, params)) => {
                self.costliest = self.costliest.take().into_iter().chain([params]).max_by_key(cost);
                text.into()
            }
            Err(message) => {
                self.error(item.span(), path, message);
                Box::default()
            }
        }
    }

    fn claims(&mut self, path: &str, item: &Item) -> Attributes {
        let mut claims = Attributes::default();
        let Some(table) = self.table(path, item) else { return claims };
        for (name, item) in table.iter() {
            let values = match item.as_str() {
                Some(text) => vec![text.into()],
                None => self.texts(&join(path, name), item),
            };
            values.iter().for_each(|value| claims.add(&join(CLAIMS, name), value));
        }
        claims
    }

    fn texts(&mut self, path: &str, item: &Item) -> Vec<Box<str>> {
        let texts = item.as_array().and_then(|array| array.iter().map(Value::as_str).collect());
        let texts: Vec<_> = texts.unwrap_or_else(|| {
            self.error(item.span(), path, "not a list of strings");
            Vec::new()
        });
        texts.into_iter().map(Box::from).collect()
    }

    fn table<'i>(&mut self, path: &str, item: &'i Item) -> Option<&'i dyn TableLike> {
        let table = item.as_table_like();
        if table.is_none() {
            self.error(item.span(), path, NOT_A_TABLE);
        }
        table
    }

    fn refuse_unknown(&mut self, path: &str, table: &dyn TableLike, known: &[&str]) {
        for (key, _) in table.iter().filter(|(key, _)| !known.contains(key)) {
            let message = format!("unknown key; known: {}", known.join(", "));
            self.error(table.key(key).and_then(toml_edit::Key::span), &join(path, key), &message);
        }
    }

    fn error(&mut self, span: Option<Range<usize>>, key: &str, message: &str) {
        self.errors.push(self.place.error(span, key.into(), message.into()));
    }
}

/// Takes argon2id alone, within bounds: nobody who can write the file can stall the process with it.
fn parse_hash(text: &str) -> Result<(PasswordHash, Params), &'static str> {
    let hash = PasswordHash::new(text).map_err(|_| "not a PHC string; make one with `mgate passwd`")?;
    if hash.algorithm != Algorithm::Argon2id.ident() || hash.version != Some(Version::V0x13.into()) {
        return Err("not a hash of argon2id, version 19");
    }
    if hash.salt.is_none() || hash.hash.as_ref().is_none_or(|output| output.len() < MIN_OUTPUT_BYTES) {
        return Err("salt or hash is missing or too short");
    }
    let params = Params::try_from(&hash).map_err(|_| "parameters of argon2id are not valid")?;
    if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_PASSES || params.p_cost() > MAX_LANES {
        return Err("parameters of argon2id are above m=262144, t=16, p=4");
    }
    Ok((hash, params))
}

fn dummy_hash(params: &Params) -> String {
    let (m, t, p) = (params.m_cost(), params.t_cost(), params.p_cost());
    // 16 bytes of salt and 32 of hash, all zero.
    format!("$argon2id$v=19$m={m},t={t},p={p}${:A<22}${:A<43}", "", "")
}

fn cost(params: &Params) -> u64 {
    u64::from(params.m_cost()) * u64::from(params.t_cost())
}

/// Sets a key in place: comments around the old value stay.
fn set(table: &mut dyn TableLike, key: &str, mut value: Value) {
    let Some(item) = table.get_mut(key) else {
        table.insert(key, value.into());
        return;
    };
    if let Some(old) = item.as_value() {
        *value.decor_mut() = old.decor().clone();
    }
    *item = value.into();
}

fn implicit_table() -> Table {
    let mut table = Table::new();
    table.set_implicit(true);
    table
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.into() } else { format!("{path}.{key}") }
}

const CLAIMS: &str = "claims";
const GROUPS: &str = "groups";
const MAX_LANES: u32 = 4;
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;
const MIN_OUTPUT_BYTES: usize = 16;
const NOT_A_TABLE: &str = "not a table";
const PASSWORD: &str = "password";
const USERS: &str = "users";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read() {
        let file = parse(TEXT).unwrap();
        let user = file.user("dev-1").unwrap();
        assert_eq!(file.len(), 2);
        assert!(file.user("dev-3").is_none());
        assert_eq!(user.groups, ["sensors".into()]);
        assert_eq!(user.claims.values("claims.channel").collect::<Vec<_>>(), ["42"]);
        assert_eq!(user.claims.values("claims.zones").collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn right_password_verifies_and_no_other() {
        assert!(verify(HASH, b"secret"));
        for wrong in [&b""[..], b"Secret", b"secret\0", b"secret "] {
            assert!(!verify(HASH, wrong), "{wrong:?}");
        }
        assert!(!verify("", b""));
    }

    #[test]
    fn new_hash_is_accepted_and_verifies() {
        let [one, other] = [(); 2].map(|()| hash_password(b"\xff secret").unwrap());
        assert_ne!(one, other);
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert!(verify(&one, b"\xff secret"));
        assert!(!verify(&one, b"secret"));
        assert!(parse(&format!("users.a.password = '{one}'")).is_ok());
    }

    #[test]
    fn every_error_is_found_with_its_line_and_key() {
        let errors = parse(BROKEN).unwrap_err();
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(said, BROKEN_ERRORS);
    }

    #[test]
    fn text_that_is_no_toml_is_one_error_without_its_content() {
        let error = &parse("[users.a]\npassword = \"$argon2id$unfinished\n").unwrap_err()[0];
        assert_eq!((error.line, error.key.as_str()), (2, ""));
        assert!(!error.to_string().contains("unfinished"), "{error}");
        assert_eq!(parse("[users.a]\n[users.a]").unwrap_err()[0].line, 2);
    }

    #[test]
    fn hash_that_could_stall_or_is_weak_is_refused() {
        let refusals = [
            ("$argon2id$", "$argon2i$", "not a hash of argon2id, version 19"),
            ("v=19", "v=16", "not a hash of argon2id, version 19"),
            ("$v=19", "", "not a hash of argon2id, version 19"),
            ("m=8", "m=262145", "parameters of argon2id are above m=262144, t=16, p=4"),
            ("t=1", "t=17", "parameters of argon2id are above m=262144, t=16, p=4"),
            ("m=8,t=1,p=1", "m=64,t=1,p=5", "parameters of argon2id are above m=262144, t=16, p=4"),
            ("t=1", "t=0", "parameters of argon2id are not valid"),
            ("5sDidhNPptw1P94ISzTyALc", "", "salt or hash is missing or too short"),
        ];
        for (part, other, message) in refusals {
            let hash = HASH.replacen(part, other, 1);
            assert_ne!(hash, HASH, "{part}");
            assert_eq!(parse_hash(&hash).map(drop), Err(message), "{hash}");
            assert!(!verify(&hash, b"secret"));
        }
    }

    #[test]
    fn largest_parameters_are_accepted() {
        assert!(parse_hash(&HASH.replace("m=8,t=1,p=1", "m=262144,t=16,p=4")).is_ok());
    }

    #[test]
    fn dummy_hash_costs_as_much_as_the_costliest() {
        let file = parse(TEXT).unwrap();
        assert!(file.dummy_hash().contains("$m=32,t=3,p=1$"), "{}", file.dummy_hash());
        assert_eq!(parse_hash(file.dummy_hash()).unwrap().1.t_cost(), 3);
        assert!(!verify(file.dummy_hash(), b""));
        assert!(parse("").unwrap().dummy_hash().contains("$m=19456,t=2,p=1$"));
    }

    #[test]
    fn debug_shows_no_hash() {
        let shown = format!("{:?}", parse(TEXT).unwrap().user("dev-1").unwrap());
        assert!(shown.contains("sensors") && !shown.contains("argon2id"), "{shown}");
    }

    #[test]
    fn changed_user_keeps_comments_and_everything_else() {
        let changed = upsert(TEXT, Path::new("users.toml"), "dev-1", "NEW").unwrap();
        assert_eq!(changed, TEXT.replacen(HASH, "NEW", 1));
    }

    #[test]
    fn new_user_is_added_behind() {
        let mut file = EditablePasswordFile::parse(TEXT, Path::new("users.toml")).unwrap();
        file.upsert("a.b", HASH, &["g".into(), "h".into()]);
        let added = format!("\n[users.\"a.b\"]\npassword = \"{HASH}\"\ngroups = [\"g\", \"h\"]\n");
        assert_eq!(file.to_string(), format!("{TEXT}{added}"));
        assert_eq!(parse(&file.to_string()).unwrap().user("a.b").unwrap().groups.len(), 2);
    }

    #[test]
    fn first_user_makes_a_file() {
        let made = upsert("", Path::new("users.toml"), "dev-1", HASH).unwrap();
        assert_eq!(made, format!("[users.dev-1]\npassword = \"{HASH}\"\n"));
    }

    #[test]
    fn user_in_one_line_is_changed_in_place() {
        for text in ["users = { a = { password = \"old\" } } # kept\n", "users.a.password = \"old\" # kept\n"]
        {
            let changed = upsert(text, Path::new("users.toml"), "a", HASH).unwrap();
            assert_eq!(changed, text.replace("old", HASH));
        }
    }

    #[test]
    fn removed_user_is_gone_and_the_others_stay() {
        let mut file = EditablePasswordFile::parse(TEXT, Path::new("users.toml")).unwrap();
        assert!(file.contains("dev-1"));
        assert!(file.remove("dev-1"));
        assert!(!file.remove("dev-1") && !file.contains("dev-1"));
        let left = parse(&file.to_string()).unwrap();
        assert!(left.user("dev-1").is_none() && left.user("dev-2").is_some());
    }

    #[test]
    fn file_whose_users_are_no_table_is_not_changed() {
        let error = upsert("\nusers = 1", Path::new("users.toml"), "a", HASH).unwrap_err();
        assert_eq!(error.to_string(), "users.toml:2: users: not a table");
    }

    fn parse(text: &str) -> Result<PasswordFile, Vec<FileError>> {
        PasswordFile::parse(text, Path::new("users.toml"))
    }

    /// Of the password `secret`, as cheap as can be; made by another implementation.
    const HASH: &str =
        "$argon2id$v=19$m=8,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$39tbUSD70LTTCIyCWo9t5sDidhNPptw1P94ISzTyALc";

    const TEXT: &str = "# who may connect\n\
        [users.dev-1] # the first\n\
        # no password that anybody uses\n\
        password = \"$argon2id$v=19$m=8,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$39tbUSD70LTTCIyCWo9t5sDidhNPptw1P94ISzTyALc\" # changed often\n\
        groups = [\"sensors\"]\n\
        claims = { channel = \"42\", zones = [\"a\", \"b\"] }\n\
        \n\
        [users.dev-2]\n\
        password = \"$argon2id$v=19$m=32,t=3,p=1$MDEyMzQ1Njc4OWFiY2RlZg$GrH0Ihe/GY077G30F5lSXp1ff1dLkmYxTyy2Ngwz+ZI\"\n";

    const BROKEN: &str = "colour = 1\n\
        [users.\"a/b\"]\n\
        password = 7\n\
        [users.c]\n\
        groups = \"one\"\n\
        claims = { x = 1, y = [1] }\n\
        [users]\n\
        d = 1\n\
        e.password = \"plain\"\n\
        e.pasword = \"plain\"\n";

    const BROKEN_ERRORS: [&str; 10] = [
        "users.toml:1: colour: unknown key; known: users",
        "users.toml:2: users.a/b: a user's name must not be empty or hold '/', '+', '#' or U+0000",
        "users.toml:3: users.a/b.password: not a string",
        "users.toml:4: users.c.password: missing",
        "users.toml:5: users.c.groups: not a list of strings",
        "users.toml:6: users.c.claims.x: not a list of strings",
        "users.toml:6: users.c.claims.y: not a list of strings",
        "users.toml:8: users.d: not a table",
        "users.toml:10: users.e.pasword: unknown key; known: password, groups, claims",
        "users.toml:9: users.e.password: not a PHC string; make one with `mgate passwd`",
    ];
}
