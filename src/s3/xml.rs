//! Reads S3's answers into a small tree of elements.
//!
//! Namespaces and attributes are ignored: some stores write the namespace in other ways or not at all. The
//! length of the text limits time and memory, whatever the text contains. A document type is refused, because
//! its entities can grow.

use std::borrow::Cow;

use xmlparser::{ElementEnd, Token, Tokenizer, XmlCharExt};

/// S3's own answers are five elements deep.
const DEEPEST: usize = 16;
/// A page of a listing has at most ten thousand elements.
const MOST_ELEMENTS: usize = 100_000;

/// Bytes between the ampersand and the semicolon: `#x10FFFF`, and zeros in front.
const LONGEST_REFERENCE: usize = 16;

/// An element: its name without a prefix, its text, and its children.
#[derive(Debug, Default)]
pub(super) struct Element {
    pub name: String,
    pub text: String,
    children: Vec<Element>,
}

/// Reads a document. Returns the root element, or what is wrong with the document.
pub(super) fn parse(text: &str) -> Result<Element, String> {
    // Some servers send white space while they work. Some put characters into a key that XML does not allow.
    let text = text.trim_start().replace(|c: char| !c.is_xml_char(), "\u{fffd}");
    let mut root = None;
    let mut open: Vec<Element> = Vec::new();
    let mut count = 0;
    for token in Tokenizer::from(text.as_str()) {
        match token.map_err(|problem| problem.to_string())? {
            Token::ElementStart { local, .. } => {
                count += 1;
                if count > MOST_ELEMENTS || open.len() == DEEPEST {
                    return Err("it has too many elements, or too many within each other".into());
                }
                open.push(Element { name: local.to_string(), ..Element::default() });
            }
            Token::ElementEnd { end: ElementEnd::Open, .. } => {}
            Token::ElementEnd { end, .. } => {
                let element = open.pop().unwrap_or_default();
                if matches!(end, ElementEnd::Close(_, name) if name != element.name.as_str()) {
                    return Err(format!("the element {} has another end", element.name));
                }
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => root = Some(element),
                }
            }
            Token::Text { text } => {
                if let Some(element) = open.last_mut() {
                    element.text += &unescape(text.as_str());
                }
            }
            Token::Cdata { text, .. } => {
                if let Some(element) = open.last_mut() {
                    element.text += text.as_str();
                }
            }
            Token::DtdStart { .. } | Token::EmptyDtd { .. } => return Err("it has a document type".into()),
            _ => {}
        }
    }
    root.filter(|_| open.is_empty()).ok_or_else(|| "it is no whole XML document".into())
}

impl Element {
    /// Returns the element itself if it has this name.
    pub fn named(self, name: &str) -> Result<Self, String> {
        if self.name == name {
            Ok(self)
        } else {
            Err(format!("it is a {}", self.name))
        }
    }

    /// The children with this name.
    pub fn all(&self, name: &'static str) -> impl Iterator<Item = &Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of the first child with this name, if it is there and not empty.
    pub fn text_of(&self, name: &'static str) -> Option<&str> {
        self.all(name).next().map(|child| child.text.as_str()).filter(|text| !text.is_empty())
    }
}

/// Resolves references. A reference to a character that XML does not allow becomes a character that is in
/// none of our keys.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        plain += before;
        // No reference is longer. The search for its end is limited too, otherwise many references would take
        // long.
        let end = behind.bytes().take(LONGEST_REFERENCE).position(|byte| byte == b';');
        let reference = end.and_then(|end| Some((character(&behind[..end])?, &behind[end + 1..])));
        match reference {
            Some((character, behind)) => {
                plain.push(character);
                rest = behind;
            }
            None => {
                plain.push('&');
                rest = behind;
            }
        }
    }
    (plain + rest).into()
}

/// The character that a reference with this name means. None if the name is not one of XML's own.
fn character(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let number = match number.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(number).filter(XmlCharExt::is_xml_char).unwrap_or('\u{fffd}')
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn elements_are_found_by_name_whatever_their_namespace() {
        for head in ["<R>", "<R xmlns=\"urn:any\">", "<s:R xmlns:s='urn:any' a=\"&lt;/R>\">"] {
            let tail = if head.starts_with("<s:") { "</s:R>" } else { "</R>" };
            let text =
                format!(" \n<?xml version=\"1.0\"?>{head}<!-- <A>no</A> --><A>1</A><B/><A>2</A>{tail}\n");
            let root = parse(&text).unwrap().named("R").unwrap();
            assert_eq!(root.all("A").map(|a| a.text.as_str()).collect::<Vec<_>>(), ["1", "2"], "{text}");
            assert_eq!((root.text_of("A"), root.text_of("B"), root.text_of("C")), (Some("1"), None, None));
        }
    }

    #[test]
    fn references_are_resolved_and_what_xml_cannot_have_does_no_harm() {
        let root = parse("<K>a&amp;b&lt;&gt;&quot;&apos;&#65;&#x1F418;<![CDATA[&amp;]]></K>").unwrap();
        assert_eq!(root.text, "a&b<>\"'A🐘&amp;");
        for text in ["<K>&#x1;</K>", "<K>&#0;</K>", "<K>\u{1}</K>", "<K>&#xD800;</K>", "<K>&#x110000;</K>"] {
            assert_eq!(parse(text).unwrap().text, "\u{fffd}", "{text}");
        }
        assert_eq!(parse("<K>a&b &x; &#99999999999; &</K>").unwrap().text, "a&b &x; &#99999999999; &");
    }

    #[test]
    fn what_is_no_whole_document_is_refused() {
        for text in ["", "nonsense", "<a>", "<a></b>", "<a><b></a></b>", "</a>", "<a/><b/>", "<a", "<a>&"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let entities = "<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]><x>&b;</x>";
        assert!(parse(entities).unwrap_err().contains("document type"));
        assert_eq!(parse("<html/>").unwrap().named("Error").unwrap_err(), "it is a html");
    }

    #[test]
    fn no_text_takes_long_or_much_memory() {
        let size = 8 << 20;
        let numbered = |form: fn(usize) -> String| {
            let mut text = String::new();
            (0..)
                .map(form)
                .take_while(|piece| {
                    text.push_str(piece);
                    text.len() < size
                })
                .for_each(drop);
            text
        };
        let attributes = numbered(|n| format!(" a{n}=''"));
        let namespaces = numbered(|n| format!(" xmlns:a{n}='u{n}'"));
        for (text, good) in [
            (format!("<a{attributes}/>"), true),
            (format!("<a{namespaces}/>"), true),
            (format!("<a>{}</a>", "<b/>".repeat(size / 4)), false),
            ("<b x='1'>".repeat(size / 9), false),
            (format!("<a>{}</a>", "&".repeat(size)), true),
            (format!("<a>{}</a>", "&amp;".repeat(size / 5)), true),
            (format!("<a>{}</a>", "<![CDATA[]]>".repeat(size / 12)), true),
            ("<!--".repeat(size / 4), false),
            ("<".repeat(size), false),
        ] {
            let started = Instant::now();
            assert_eq!(parse(&text).is_ok(), good, "{}", &text[..40]);
            // Takes tens of milliseconds if the machine is free and the code is optimized.
            assert!(started.elapsed() < Duration::from_secs(30), "{} {:?}", &text[..40], started.elapsed());
        }
    }

    #[test]
    fn whatever_is_read_is_a_tree_or_refused() {
        let seeds = [
            "<?xml version=\"1.0\"?><Error xmlns=\"urn:any\"><Code>a&amp;b</Code><Message><![CDATA[no]]></Message></Error>",
            "<!DOCTYPE x [<!ENTITY a \"aaaa\">]><x>&a;</x>",
        ];
        crate::base::fuzz::feed(&seeds, |text| drop(parse(text)));
    }
}
