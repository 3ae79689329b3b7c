//! What looks personal: by the name of a column, by its type, and by the values in it. A guess that asks somebody to look, and no proof
//! that there is nothing.

/// What a column is called that holds what is personal, in the words of tables that people make (English, German, French, Spanish): a word of the
/// column's name, or two that stand together.
const NAMES: &[(&str, &str)] = &[
    ("mail email emails mails correo courriel", "mail address"),
    ("phone telephone tel mobile cell fax telefon handy telefono", "telephone number"),
    (
        "firstname lastname surname fullname forename middlename maidenname vorname nachname prenom apellido apellidos first_name last_name full_name given_name family_name middle_name maiden_name",
        "name",
    ),
    ("address addr street postcode zipcode zip_code postal_code postal strasse adresse anschrift direccion address1 address2 house_number", "address"),
    ("birth birthday birthdate dob born date_of_birth geburtsdatum geboren naissance nacimiento", "date of birth"),
    (
        "ssn nino nif cpf passport national_id social_security identity_card tax_id taxid steuer_id driver_license driving_licence personal_number",
        "number of a person",
    ),
    ("iban bic swift account_number account_no bank_account kontonummer sort_code", "bank account"),
    ("card_number cardnumber credit_card creditcard pan ccn cc_number cvv cvc card_no", "payment card"),
    ("password passwd pwd passwort kennwort secret token api_key apikey", "secret"),
    ("ip_address ip_addr client_ip remote_addr user_agent", "address of a machine"),
    ("salary wage gehalt salario iban_number", "pay"),
    ("gender religion ethnicity diagnosis disability blood_type", "special category"),
    ("signature photo portrait face fingerprint", "biometric"),
];

/// Tables in which a plain `name` is somebody's.
const OF_PEOPLE: &str = "people person persons customer customers client clients user users employee employees contact contacts patient patients member members staff \
                         student students candidate candidates guest guests kunde kunden mitarbeiter benutzer author authors driver drivers tenant tenants";

/// The words of a name: `customerEMail`, `customer_e-mail` and `CUSTOMER E MAIL` are the same.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        if !c.is_alphanumeric() {
            words.push(String::new());
        } else {
            if c.is_uppercase() && before.is_lowercase() {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.extend(c.to_lowercase());
            }
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    // a letter by itself belongs to what follows: e-mail
    let mut at = 0;
    while at + 1 < words.len() {
        if words[at] == "e" && words[at + 1].starts_with("mail") {
            words.remove(at);
        } else {
            at += 1;
        }
    }
    words
}

/// What a column of this name and type holds, as far as those tell. `kind` is the name of its type, as the target writes it.
pub fn by_name(table: &str, column: &str, kind: &str) -> Option<&'static str> {
    // what only counts or says yes and no tells nothing of a person, whatever it is called
    if matches!(kind, "boolean" | "bool") {
        return None;
    }
    let words = words(column);
    let pairs: Vec<String> = words.windows(2).map(|pair| pair.join("_")).collect();
    let has = |list: &str| list.split_whitespace().any(|known| words.iter().chain(&pairs).any(|word| word == known));
    if let Some((_, what)) = NAMES.iter().find(|(list, _)| has(list)) {
        return Some(what);
    }
    let of_people = OF_PEOPLE.split_whitespace().any(|known| self::words(table).iter().any(|word| word == known));
    if of_people && words == ["name"] {
        return Some("name");
    }
    match kind {
        "inet" | "cidr" => Some("address of a machine"),
        other if self::words(other).iter().any(|word| word.contains("mail")) => Some("mail address"),
        _ => None,
    }
}

/// What values are, as far as their form tells.
pub fn by_values<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    let (mut cards, mut like_cards, mut persons) = (0, 0, 0);
    for value in values {
        if has_mail(value) {
            return Some("mail addresses");
        }
        if is_iban(value) {
            return Some("bank accounts (IBAN)");
        }
        if let Some(is_one) = card(value) {
            like_cards += 1;
            cards += usize::from(is_one);
        }
        persons += usize::from(is_social_security(value));
    }
    // one in ten numbers has the right check digit by chance
    if cards >= 5 && cards * 10 >= like_cards * 9 {
        return Some("payment cards (check digit)");
    }
    (persons >= 3).then_some("numbers of persons (social security)")
}

/// An address somewhere in a text. Those of domains that are nobody's (RFC 2606, section 2) are masks.
fn has_mail(text: &str) -> bool {
    let local = |c: char| c.is_ascii_alphanumeric() || "._%+-".contains(c);
    text.match_indices('@').any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(local);
        let domain: String = text[at + 1..].chars().take_while(|c| c.is_ascii_alphanumeric() || ".-".contains(*c)).collect();
        let domain = domain.trim_end_matches('.');
        let Some((name, top)) = domain.rsplit_once('.') else { return false };
        before && !name.is_empty() && top.len() >= 2 && top.chars().all(|c| c.is_ascii_alphabetic()) && !matches!(top, "invalid" | "test" | "example")
    })
}

/// A number of 13 to 19 digits, alone (ISO/IEC 7812-1): whether its check digit is right (annex B, Luhn).
fn card(text: &str) -> Option<bool> {
    let text = text.trim();
    if text.chars().any(|c| !c.is_ascii_digit() && c != ' ' && c != '-') {
        return None;
    }
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    if !(13..=19).contains(&digits.len()) || digits.iter().all(|digit| *digit == digits[0]) {
        return None;
    }
    let sum: u32 = digits.iter().rev().enumerate().map(|(at, digit)| if at % 2 == 0 { *digit } else { digit * 2 / 10 + digit * 2 % 10 }).sum();
    Some(sum.is_multiple_of(10))
}

/// An account number by its form and its remainder by 97 (ISO 13616).
fn is_iban(text: &str) -> bool {
    let text: String = text.chars().filter(|c| *c != ' ').collect();
    if !(15..=34).contains(&text.len()) || !text.is_ascii() {
        return false;
    }
    let (head, rest) = text.split_at(4);
    let bytes = head.as_bytes();
    let form = bytes[..2].iter().all(u8::is_ascii_uppercase) && bytes[2..].iter().all(u8::is_ascii_digit);
    if !form || !rest.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) {
        return false;
    }
    let number = rest.chars().chain(head.chars()).filter_map(|c| c.to_digit(36));
    number.fold(0, |left, digit| if digit < 10 { (left * 10 + digit) % 97 } else { (left * 100 + digit) % 97 }) == 1
}

/// As they are written in the United States: 123-45-6789.
fn is_social_security(text: &str) -> bool {
    let bytes = text.trim().as_bytes();
    bytes.len() == 11 && bytes.iter().enumerate().all(|(at, b)| if at == 3 || at == 6 { *b == b'-' } else { b.is_ascii_digit() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_columns_tell_what_is_in_them() {
        for (table, column) in [
            ("orders", "customer_email"),
            ("orders", "CustomerEMail"),
            ("orders", "e-mail"),
            ("t", "PhoneNumber"),
            ("t", "date_of_birth"),
            ("customers", "name"),
            ("t", "first_name"),
            ("t", "creditCard"),
            ("konto", "Kontonummer"),
        ] {
            assert!(by_name(table, column, "text").is_some(), "{table}.{column}");
        }
        for (table, column) in [("products", "name"), ("t", "emailed_at_count"), ("t", "tellers"), ("t", "id"), ("t", "cellar"), ("t", "company")] {
            assert!(by_name(table, column, "text").is_none(), "{table}.{column}");
        }
        assert_eq!(by_name("t", "wants_email", "boolean"), None);
        assert_eq!(by_name("t", "came_from", "inet"), Some("address of a machine"));
    }

    #[test]
    fn values_tell_what_they_are() {
        assert_eq!(by_values(["call me", "write to maria@corp.example.com, please"]), Some("mail addresses"));
        assert_eq!(by_values(["a1b2c3@masked.invalid", "@", "a@b", "x @ y.z", "5@6.7"]), None);
        assert_eq!(by_values(["DE89 3704 0044 0532 0130 00"]), Some("bank accounts (IBAN)"));
        assert_eq!(by_values(["DE88 3704 0044 0532 0130 00"]), None);
        // numbers for tests of payment, as their issuers publish them
        let cards = ["4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005", "6011111111111117", "4012888888881881"];
        assert_eq!(by_values(cards), Some("payment cards (check digit)"));
        assert_eq!(by_values(["1234567890123", "1234567890124", "1234567890125", "1234567890126", "1234567890127", "1234567890128"]), None);
        assert_eq!(by_values(["123-45-6789", "987-65-4321", "111-22-3333"]), Some("numbers of persons (social security)"));
        assert_eq!(by_values(["0000000000000000", "\u{1F600}@\u{1F600}.com", ""]), None);
    }
}
