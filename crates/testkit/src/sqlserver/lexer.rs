//! T-SQL cut into words and statements, as far as a stand-in needs it.

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Token {
    /// A keyword, name, number or variable, as it was written.
    Word(String),
    /// A name in brackets or double quotes, without them.
    Name(String),
    /// A text, without its quotes and prefix.
    Text(String),
    Symbol(char),
}

impl Token {
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(text) if text.eq_ignore_ascii_case(word))
    }

    pub fn is_symbol(&self, symbol: char) -> bool {
        *self == Token::Symbol(symbol)
    }

    /// What is named or written, whatever its quotes.
    pub fn text(&self) -> String {
        match self {
            Token::Word(text) | Token::Name(text) | Token::Text(text) => text.clone(),
            Token::Symbol(symbol) => symbol.to_string(),
        }
    }
}

pub fn tokens(sql: &str) -> Vec<Token> {
    let chars: Vec<char> = sql.chars().collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let next = chars.get(at + 1).copied();
        match c {
            _ if c.is_whitespace() => at += 1,
            '-' if next == Some('-') => at += chars[at..].iter().take_while(|c| **c != '\n').count(),
            '/' if next == Some('*') => {
                let end = chars[at + 2..].windows(2).position(|pair| pair == ['*', '/']).map_or(chars.len(), |n| at + n + 4);
                at = end;
            }
            'N' | 'n' if next == Some('\'') => {
                let (text, end) = quoted(&chars, at + 1, '\'');
                out.push(Token::Text(text));
                at = end;
            }
            '\'' => {
                let (text, end) = quoted(&chars, at, '\'');
                out.push(Token::Text(text));
                at = end;
            }
            '[' | '"' => {
                let (text, end) = quoted(&chars, at, if c == '[' { ']' } else { '"' });
                out.push(Token::Name(text));
                at = end;
            }
            _ if c.is_alphanumeric() || "_@#$".contains(c) => {
                let number = c.is_ascii_digit();
                let length = chars[at..].iter().take_while(|c| c.is_alphanumeric() || "_@#$".contains(**c) || (number && **c == '.')).count();
                out.push(Token::Word(chars[at..at + length].iter().collect()));
                at += length;
            }
            _ => {
                out.push(Token::Symbol(c));
                at += 1;
            }
        }
    }
    out
}

/// The text that begins at a quote, with its doubled quotes made one; and where it ends.
fn quoted(chars: &[char], mut at: usize, close: char) -> (String, usize) {
    let mut text = String::new();
    at += 1;
    while let Some(c) = chars.get(at) {
        if *c == close {
            if chars.get(at + 1) != Some(&close) {
                return (text, at + 1);
            }
            at += 1;
        }
        text.push(*c);
        at += 1;
    }
    (text, at)
}

const STARTERS: &[&str] = &[
    "SELECT", "INSERT", "UPDATE", "DELETE", "SET", "USE", "CREATE", "ALTER", "DROP", "GRANT", "REVOKE", "DENY", "EXEC", "EXECUTE", "KILL", "WAITFOR", "BEGIN",
    "COMMIT", "ROLLBACK", "SAVE", "IF", "DBCC", "DECLARE", "PRINT", "WITH", "END",
];

/// The statements of a batch: T-SQL needs no semicolon between them.
pub fn statements(sql: &str) -> Vec<Vec<Token>> {
    let mut all = Vec::new();
    let mut now: Vec<Token> = Vec::new();
    let mut depth = 0_usize;
    for token in tokens(sql) {
        match &token {
            Token::Symbol('(') => depth += 1,
            Token::Symbol(')') => depth = depth.saturating_sub(1),
            Token::Symbol(';') if depth == 0 => {
                all.extend((!now.is_empty()).then(|| std::mem::take(&mut now)));
                continue;
            }
            Token::Word(word) if depth == 0 && STARTERS.iter().any(|starter| word.eq_ignore_ascii_case(starter)) && !goes_on(&now, word) => {
                all.extend((!now.is_empty()).then(|| std::mem::take(&mut now)));
            }
            _ => {}
        }
        now.push(token);
    }
    all.extend((!now.is_empty()).then_some(now));
    all
}

/// Whether a word that could begin a statement belongs to the one before it.
fn goes_on(now: &[Token], word: &str) -> bool {
    let Some(first) = now.first() else { return true };
    let is = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
    let has = |known: &str| now.iter().any(|token| token.is(known));
    match first.text().to_ascii_uppercase().as_str() {
        "CREATE" | "ALTER" | "GRANT" | "REVOKE" | "DENY" | "DROP" => !is(&["EXEC", "COMMIT"]),
        "BACKUP" | "RESTORE" => true,
        "INSERT" => (is(&["SELECT"]) && !has("VALUES") && !has("SELECT")) || is(&["WITH"]),
        "UPDATE" => is(&["SET"]) && !has("SET"),
        "WITH" => is(&["SELECT"]) && !has("SELECT") || now.last().is_some_and(|last| last.is("ALL") || last.is("UNION")),
        "SELECT" => {
            is(&["WITH"])
                || (is(&["SELECT"]) && now.last().is_some_and(|last| ["UNION", "ALL", "EXCEPT", "INTERSECT"].iter().any(|w| last.is(w))))
                || is(&["END"])
        }
        "IF" => is(&["COMMIT", "ROLLBACK"]) && !has("COMMIT") && !has("ROLLBACK"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_comes_apart_into_its_statements() {
        let count = |sql: &str| statements(sql).len();
        assert_eq!(count("set textsize 2147483647\nset quoted_identifier on\nset ansi_nulls on"), 3);
        assert_eq!(count("SELECT 1 UNION ALL SELECT 2; SELECT 'a;b' -- c; d\n"), 2);
        assert_eq!(count("INSERT INTO t SELECT 1 UPDATE t SET a = 1"), 2);
        assert_eq!(count("GRANT SELECT ON t TO u; ALTER ROLE r DROP MEMBER u"), 2);
        assert_eq!(tokens("N'it''s' [a]]b]"), [Token::Text("it's".into()), Token::Name("a]b".into())]);
    }
}
