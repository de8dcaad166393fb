//! One field of a crontab(5) expression → the numbers that it names.

/// What one of the five fields may contain.
pub struct FieldKind {
    name: &'static str,
    /// What `*` means, in words.
    whole: &'static str,
    /// The smallest number.
    pub first: u32,
    /// The largest number.
    pub last: u32,
    /// The last number that `*` names.
    star_last: u32,
    /// The first of these names stands for `first`.
    names: &'static [&'static str],
}

pub const MINUTE: FieldKind =
    FieldKind { name: "minute", whole: "an hour", first: 0, last: 59, star_last: 59, names: &[] };
pub const HOUR: FieldKind =
    FieldKind { name: "hour", whole: "a day", first: 0, last: 23, star_last: 23, names: &[] };
pub const DAY: FieldKind =
    FieldKind { name: "day of month", whole: "a month", first: 1, last: 31, star_last: 31, names: &[] };
pub const MONTH: FieldKind = FieldKind {
    name: "month",
    whole: "a year",
    first: 1,
    last: 12,
    star_last: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
/// Sunday is 0 and 7, so `*` does not need 7.
pub const WEEKDAY: FieldKind = FieldKind {
    name: "day of week",
    whole: "a week",
    first: 0,
    last: 7,
    star_last: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// The kinds, in the order of an expression.
pub const KINDS: [FieldKind; 5] = [MINUTE, HOUR, DAY, MONTH, WEEKDAY];

/// The five fields of an expression, if it has exactly five.
pub fn five(expression: &str) -> Option<[&str; 5]> {
    expression.split_ascii_whitespace().collect::<Vec<_>>().try_into().ok()
}

/// One item of a field's list: a number, a range, or either with a step.
pub struct Item {
    /// The number that the item begins with.
    pub first: u32,
    last: u32,
    /// 1 if the item has no step.
    pub step: u32,
}

impl Item {
    /// Whether the step leaves no second number. Somebody who writes a step wants several numbers, so this is
    /// a mistake: `*/90` minutes is not every 90 minutes, but once an hour.
    pub fn step_is_too_large(&self) -> bool {
        self.step > 1 && self.step > self.last - self.first
    }
}

impl FieldKind {
    /// The numbers that a field names, in order.
    pub fn parse(&self, field: &str) -> Result<Vec<u32>, String> {
        let mut numbers = Vec::new();
        for text in field.split(',') {
            let item = self.item(field, text)?;
            if item.step_is_too_large() {
                let range = text.split_once('/').map(|(range, _)| range).filter(|range| *range != "*");
                return Err(self.wrong(
                    field,
                    &format!(
                        "a step of {} does not fit {}, and only {} would match",
                        item.step,
                        range.unwrap_or(self.whole),
                        item.first
                    ),
                ));
            }
            numbers.extend((item.first..=item.last).step_by(item.step as usize));
        }
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }

    /// Reads one item of the list `field`.
    pub fn item(&self, field: &str, item: &str) -> Result<Item, String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.first, self.star_last),
            Some((first, last)) => self.range(field, first, last)?,
            None => {
                let number = self.number(field, range)?;
                if step.is_some() {
                    return Err(self.wrong(field, "a step needs * or a range before it"));
                }
                (number, number)
            }
        };
        let step = match step {
            None => 1,
            Some(step) => match step.parse() {
                Ok(step) if step > 0 => step,
                _ => return Err(self.wrong(field, "a step is a number from 1")),
            },
        };
        Ok(Item { first, last, step })
    }

    fn range(&self, field: &str, first: &str, last: &str) -> Result<(u32, u32), String> {
        let low = self.number(field, first)?;
        let mut high = self.number(field, last)?;
        // FRI-SUN: at the end of a range, Sunday by name is 7.
        if self.last == 7 && high == 0 && low > 0 && last.eq_ignore_ascii_case("sun") {
            high = 7;
        }
        if low > high {
            return Err(self.wrong(field, "a range goes from the smaller to the larger"));
        }
        Ok((low, high))
    }

    /// A number, or a name for one. `field` is the whole field.
    pub fn number(&self, field: &str, text: &str) -> Result<u32, String> {
        if let Some(at) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(self.first + at as u32);
        }
        // `+5` would be parsed as a number.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && (self.first..=self.last).contains(number));
        number.ok_or_else(|| {
            let names = match (self.names.first(), self.names.last()) {
                (Some(first), Some(last)) => format!(" or a name from {first} to {last}"),
                _ => String::new(),
            };
            self.wrong(
                field,
                &format!("\"{text}\" is not a number from {} to {}{names}", self.first, self.last),
            )
        })
    }

    fn wrong(&self, field: &str, what: &str) -> String {
        format!("the {} field \"{field}\": {what}", self.name)
    }
}
