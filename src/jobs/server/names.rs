//! Which databases of a server are meant: names, and patterns with `*`. This code is pure: the server is
//! asked elsewhere.

use std::fmt;

/// Names and patterns, and those that are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    wanted: List,
    unwanted: List,
}

/// Names and patterns, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List(Vec<String>);

/// What a server has of what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The databases to back up, in the server's order.
    pub databases: Vec<String>,
    /// Names that are not there.
    pub absent: Vec<String>,
    /// Patterns that match nothing.
    pub idle: Vec<String>,
}

impl List {
    /// Reads `app,shop_*`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        match names.iter().any(String::is_empty) {
            true => Err(format!("is \"{text}\", in which a name between two commas is empty")),
            false => Ok(List(names)),
        }
    }

    fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, name))
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl Names {
    /// What `wanted` says, without what `unwanted` says.
    pub fn new(wanted: List, unwanted: List) -> Self {
        Names { wanted, unwanted }
    }

    /// Whether a database of this name is meant.
    pub fn mean(&self, name: &str) -> bool {
        self.wanted.matches(name) && !self.unwanted.matches(name)
    }

    /// Chooses among the databases that a server has.
    pub fn choose(&self, there: &[String]) -> Choice {
        let missed = |pattern: &&String| !there.iter().any(|name| matches(pattern, name));
        let (idle, absent) =
            self.wanted.0.iter().filter(missed).cloned().partition(|pattern: &String| pattern.contains('*'));
        let absent: Vec<String> = absent;
        Choice {
            databases: there.iter().filter(|name| self.mean(name)).cloned().collect(),
            absent: absent.into_iter().filter(|name| !self.unwanted.matches(name)).collect(),
            idle,
        }
    }
}

/// Whether `pattern`, in which `*` stands for any text, matches the whole name.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_everything_else_for_itself() {
        for (pattern, name, expected) in [
            ("app", "app", true),
            ("app", "app2", false),
            ("app", "App", false),
            ("*", "", true),
            ("*", "é.x", true),
            ("shop_*", "shop_", true),
            ("shop_*", "shop", false),
            ("*_test", "a_test", true),
            ("*_test", "_test", true),
            ("*_test", "a_test2", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-bb-c", true),
            ("a*b*c", "acb", false),
            // One text cannot be the end of two pieces.
            ("ab*b", "ab", false),
            ("*ab*ab*", "abab", true),
            ("*ab*ab", "ab", false),
            ("a**c", "abc", true),
            ("a.c", "abc", false),
            ("a?", "ab", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    fn choose(wanted: &str, unwanted: &str, there: &[&str]) -> Choice {
        let unwanted = if unwanted.is_empty() { List::default() } else { List::parse(unwanted).unwrap() };
        let names = Names::new(List::parse(wanted).unwrap(), unwanted);
        names.choose(&there.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_name_has_to_be_there_and_a_pattern_may_match_nothing() {
        let there = ["app", "app_test", "shop_a", "shop_b"];
        let choice = choose("shop_*, app ,gone,x_*,shop_a", "*_test,other", &there);
        assert_eq!(choice.databases, texts(&["app", "shop_a", "shop_b"]), "each once");
        assert_eq!((choice.absent, choice.idle), (texts(&["gone"]), texts(&["x_*"])));
        let choice = choose("*,app,gone_test", "*_test", &there);
        assert_eq!(choice.databases, texts(&["app", "shop_a", "shop_b"]));
        // What is left out need not be there. What a pattern matches and another leaves out is no match of
        // nothing.
        assert_eq!((choice.absent, choice.idle), (vec![], vec![]));
        let choice = choose("*_test", "*_test", &there);
        assert_eq!(choice, Choice::default());
    }

    #[test]
    fn an_empty_name_is_refused() {
        for text in ["", " ", ",", "app,", "app,,shop"] {
            assert!(List::parse(text).unwrap_err().contains("is empty"), "{text}");
        }
    }

    #[test]
    fn whatever_is_written_is_a_list_or_refused_and_each_name_matches_itself() {
        crate::base::fuzz::feed(&["app,shop_*,*", "*a*b*,é"], |text| {
            let Ok(list) = List::parse(text) else { return };
            for name in &list.0 {
                assert!(matches(name, name), "{name}");
            }
        });
    }
}
