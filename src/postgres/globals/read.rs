//! Reads pg_dumpall's statements, and writes them anew. This code is pure.

use crate::base::units;
use crate::postgres::databases::{identifier, literal};

/// What a role may be. The others are what a new role is anyway, and naming them needs rights that the
/// administrators of managed servers do not have.
const ATTRIBUTES: [&str; 7] =
    ["SUPERUSER", "NOINHERIT", "CREATEROLE", "CREATEDB", "LOGIN", "REPLICATION", "BYPASSRLS"];
const USUAL: [&str; 7] =
    ["NOSUPERUSER", "INHERIT", "NOCREATEROLE", "NOCREATEDB", "NOLOGIN", "NOREPLICATION", "NOBYPASSRLS"];
/// Settings of the script itself, and what psql runs in its restricted mode.
const HEADER: [&str; 2] = ["SET", "\\"];

/// A piece of SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A keyword, a name without quotes, or a number.
    Word(String),
    /// A name in double quotes.
    Quoted(String),
    /// A string.
    Text(String),
    /// Anything else.
    Sign(char),
}

/// What a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// It makes this role.
    NewRole(String),
    /// It changes this role.
    Role(String),
    /// It makes this tablespace.
    NewTablespace(String),
    /// It changes this tablespace.
    Tablespace(String),
}

/// A statement, written anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What it is about.
    pub subject: Subject,
    /// SQL. If a server refuses the first form, the next one may do.
    pub sql: Vec<String>,
    /// For a message. Never a secret.
    pub about: String,
    /// Whether it makes a superuser.
    pub mighty: bool,
}

/// The statements of a script, as tokens. What ends within a quotation is no statement.
pub fn statements(script: &str) -> Vec<Vec<Token>> {
    let (mut statements, mut tokens) = (Vec::new(), Vec::new());
    let mut rest = script;
    while let Some(c) = rest.chars().next() {
        if c.is_whitespace() {
            rest = &rest[c.len_utf8()..];
        } else if rest.starts_with("--") || (tokens.is_empty() && c == '\\') {
            // A comment, or a command of psql's.
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if c == ';' {
            statements.push(std::mem::take(&mut tokens));
            rest = &rest[1..];
        } else {
            let Some((token, behind)) = token(rest, c) else { break };
            tokens.push(token);
            rest = behind;
        }
    }
    statements
}

/// The first token of `rest`, which begins with `c`.
fn token(rest: &str, c: char) -> Option<(Token, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
    if c == '\'' {
        let (text, rest) = quotation(&rest[1..], '\'', false)?;
        return Some((Token::Text(text), rest));
    }
    if let Some(text) = rest.strip_prefix("E'") {
        let (text, rest) = quotation(text, '\'', true)?;
        return Some((Token::Text(text), rest));
    }
    if c == '"' {
        let (name, rest) = quotation(&rest[1..], '"', false)?;
        return Some((Token::Quoted(name), rest));
    }
    if is_word(c) {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        return Some((Token::Word(rest[..end].to_owned()), &rest[end..]));
    }
    Some((Token::Sign(c), &rest[c.len_utf8()..]))
}

/// Reads up to the quote that ends it; two of them stand for one. In an escape string, pg_dumpall writes two
/// backslashes for one, and no other escape.
fn quotation(rest: &str, quote: char, escapes: bool) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return Some((text, &rest[at + c.len_utf8()..]));
        }
        if escapes && c == '\\' && chars.next_if(|(_, next)| *next == '\\').is_none() {
            return None;
        }
        text.push(c);
    }
    None
}

/// Reads a statement.
///
/// # Errors
/// Its beginning, if pg_dumpall writes no such statement.
pub fn statement(tokens: &[Token]) -> Result<Option<Statement>, String> {
    let words = |token: &Token| match token {
        Token::Word(word) => word.clone(),
        // It may be anything.
        Token::Quoted(_) | Token::Text(_) | Token::Sign(_) => "…".to_owned(),
    };
    if tokens.is_empty() || matches!(&tokens[0], Token::Word(word) if HEADER.contains(&word.as_str())) {
        return Ok(None);
    }
    let beginning = || units::shortened(tokens.iter().take(4).map(words).collect::<Vec<_>>().join(" "), 100);
    read(&mut Cursor(tokens)).map(Some).ok_or_else(beginning)
}

fn read(from: &mut Cursor<'_>) -> Option<Statement> {
    let statement = match (from.word()?, from.word()?) {
        ("CREATE", "ROLE") => {
            let name = from.name()?;
            let sql = format!("CREATE ROLE {};", identifier(&name));
            Statement::new(Subject::NewRole(name.clone()), vec![sql], format!("role \"{name}\""))
        }
        ("ALTER", "ROLE") => alter_role(from)?,
        ("COMMENT", "ON") => comment(from)?,
        ("CREATE", "TABLESPACE") => {
            let name = from.name()?;
            from.expect("OWNER")?;
            let owner = identifier(&from.name()?);
            from.expect("LOCATION")?;
            let place = literal(&from.text()?);
            let sql = format!("CREATE TABLESPACE {} OWNER {owner} LOCATION {place};", identifier(&name));
            Statement::new(Subject::NewTablespace(name.clone()), vec![sql], format!("tablespace \"{name}\""))
        }
        ("ALTER", "TABLESPACE") => {
            let name = from.name()?;
            from.expect("SET")?;
            from.sign('(')?;
            let mut options = Vec::new();
            while options.is_empty() || from.sign(',').is_some() {
                let option = identifier(&from.name()?);
                from.sign('=')?;
                options.push(format!("{option} = {}", literal(&from.value()?)));
            }
            from.sign(')')?;
            let sql = format!("ALTER TABLESPACE {} SET ({});", identifier(&name), options.join(", "));
            Statement::new(
                Subject::Tablespace(name.clone()),
                vec![sql],
                format!("options of tablespace \"{name}\""),
            )
        }
        (verb @ ("GRANT" | "REVOKE"), first) => grant(from, verb, first)?,
        _ => return None,
    };
    // Nothing may be left.
    from.0.is_empty().then_some(statement)
}

fn alter_role(from: &mut Cursor<'_>) -> Option<Statement> {
    let name = from.name()?;
    let role = identifier(&name);
    let subject = Subject::Role(name.clone());
    if from.expect("SET").is_some() {
        let parameter = from.name()?;
        from.expect("TO")?;
        let mut values = vec![literal(&from.text()?)];
        while from.sign(',').is_some() {
            values.push(literal(&from.text()?));
        }
        let quoted: Vec<String> = parameter.split('.').map(identifier).collect();
        let sql = format!("ALTER ROLE {role} SET {} TO {};", quoted.join("."), values.join(", "));
        return Some(Statement::new(subject, vec![sql], format!("setting {parameter} of role \"{name}\"")));
    }
    from.expect("WITH")?;
    let (mut attributes, mut mighty) = (String::new(), false);
    while let Some(word) = from.word() {
        match word {
            "CONNECTION" => {
                from.expect("LIMIT")?;
                let limit: i32 = from.word()?.parse().ok()?;
                attributes += &format!(" CONNECTION LIMIT {limit}");
            }
            "PASSWORD" => attributes += &format!(" PASSWORD {}", literal(&from.text()?)),
            "VALID" => {
                from.expect("UNTIL")?;
                attributes += &format!(" VALID UNTIL {}", literal(&from.text()?));
            }
            word if ATTRIBUTES.contains(&word) => {
                mighty |= word == "SUPERUSER";
                attributes += &format!(" {word}");
            }
            word if USUAL.contains(&word) => {}
            _ => return None,
        }
    }
    let sql = match attributes.is_empty() {
        true => String::new(),
        false => format!("ALTER ROLE {role} WITH{attributes};"),
    };
    let about = if mighty { name.clone() } else { format!("attributes of role \"{name}\"") };
    Some(Statement { mighty, ..Statement::new(subject, vec![sql], about) })
}

fn comment(from: &mut Cursor<'_>) -> Option<Statement> {
    let kind = from.word().filter(|kind| matches!(*kind, "ROLE" | "TABLESPACE"))?;
    let name = from.name()?;
    from.expect("IS")?;
    let sql = format!("COMMENT ON {kind} {} IS {};", identifier(&name), literal(&from.text()?));
    let about = format!("comment of {} \"{name}\"", kind.to_lowercase());
    let subject = if kind == "ROLE" { Subject::Role(name) } else { Subject::Tablespace(name) };
    Some(Statement::new(subject, vec![sql], about))
}

/// A membership, a right to set a parameter, or a right on a tablespace.
fn grant(from: &mut Cursor<'_>, verb: &str, first: &str) -> Option<Statement> {
    let privileges = match (first, from.peek()) {
        ("SET" | "ALL" | "CREATE", Some("ON")) => first.to_owned(),
        ("SET", _) if from.sign(',').is_some() => {
            from.expect("ALTER")?;
            from.expect("SYSTEM")?;
            "SET, ALTER SYSTEM".to_owned()
        }
        ("ALTER", Some("SYSTEM")) => {
            from.expect("SYSTEM")?;
            "ALTER SYSTEM".to_owned()
        }
        _ => return membership(from, verb, first),
    };
    from.expect("ON")?;
    let kind = from.word().filter(|kind| matches!(*kind, "PARAMETER" | "TABLESPACE"))?;
    let object = from.name()?;
    let preposition = from.word().filter(|word| matches!(*word, "TO" | "FROM"))?;
    let grantee = from.name()?;
    let option = match from.expect("WITH") {
        Some(()) => {
            from.expect("GRANT")?;
            from.expect("OPTION")?;
            " WITH GRANT OPTION"
        }
        None => "",
    };
    let quoted: Vec<String> = object.split('.').map(identifier).collect();
    let name = if kind == "PARAMETER" { quoted.join(".") } else { identifier(&object) };
    // Everybody is written without quotes.
    let to = if grantee == "PUBLIC" { grantee.clone() } else { identifier(&grantee) };
    let sql = format!("{verb} {privileges} ON {kind} {name} {preposition} {to}{option};");
    let about = format!("{verb} on {} \"{object}\"", kind.to_lowercase());
    let subject = if kind == "PARAMETER" { Subject::Role(grantee) } else { Subject::Tablespace(object) };
    Some(Statement::new(subject, vec![sql], about))
}

/// `GRANT group TO member …`. It changes the member. `group` was read as a word, or it is in quotes.
fn membership(from: &mut Cursor<'_>, verb: &str, group: &str) -> Option<Statement> {
    if verb != "GRANT" {
        return None;
    }
    from.expect("TO")?;
    let member = from.name()?;
    let mut options = Vec::new();
    if from.expect("WITH").is_some() {
        while options.is_empty() || from.sign(',').is_some() {
            let option = from.word().filter(|word| matches!(*word, "ADMIN" | "INHERIT" | "SET"))?;
            let value = from.word().filter(|word| matches!(*word, "OPTION" | "TRUE" | "FALSE"))?;
            options.push((option, value));
        }
    }
    let grantor = match from.expect("GRANTED") {
        Some(()) => {
            from.expect("BY")?;
            format!(" GRANTED BY {}", identifier(&from.name()?))
        }
        None => String::new(),
    };
    let all: Vec<String> = options.iter().map(|(option, value)| format!("{option} {value}")).collect();
    let with = if all.is_empty() { String::new() } else { format!(" WITH {}", all.join(", ")) };
    let admin = options.iter().any(|(option, value)| *option == "ADMIN" && *value != "FALSE");
    let old = if admin { " WITH ADMIN OPTION" } else { "" };
    let grant = format!("GRANT {} TO {}", identifier(group), identifier(&member));
    // The grantor may not be there or lack the right, and before 16 there is only one option.
    let mut sql =
        vec![format!("{grant}{with}{grantor};"), format!("{grant}{with};"), format!("{grant}{old};")];
    sql.dedup();
    let about = format!("membership of \"{member}\" in \"{group}\"");
    Some(Statement::new(Subject::Role(member), sql, about))
}

impl Statement {
    fn new(subject: Subject, sql: Vec<String>, about: String) -> Self {
        Statement { subject, sql, about, mighty: false }
    }
}

/// The tokens that are not read yet. What does not fit is not taken.
struct Cursor<'a>(&'a [Token]);

impl<'a> Cursor<'a> {
    fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn peek(&self) -> Option<&'a str> {
        match self.0.first() {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// A keyword; or the name of a role in a GRANT, which may be in quotes.
    fn word(&mut self) -> Option<&'a str> {
        match self.0.first()? {
            Token::Word(word) | Token::Quoted(word) => {
                self.next();
                Some(word)
            }
            Token::Text(_) | Token::Sign(_) => None,
        }
    }

    fn expect(&mut self, keyword: &str) -> Option<()> {
        self.peek().filter(|word| *word == keyword)?;
        self.next().map(|_| ())
    }

    fn name(&mut self) -> Option<String> {
        self.word().map(str::to_owned)
    }

    fn text(&mut self) -> Option<String> {
        match self.0.first()? {
            Token::Text(text) => {
                self.next();
                Some(text.clone())
            }
            _ => None,
        }
    }

    fn value(&mut self) -> Option<String> {
        self.text().or_else(|| self.name())
    }

    fn sign(&mut self, sign: char) -> Option<()> {
        self.0.first().filter(|token| **token == Token::Sign(sign))?;
        self.next().map(|_| ())
    }
}

#[cfg(test)]
mod tests;
