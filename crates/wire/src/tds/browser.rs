//! SQL Server Browser ([MC-SQLR]): a tool that is given `server\instance` and no port asks UDP 1434 for it.

use super::packet::Reader;

/// CLNT_BCAST_EX and CLNT_UCAST_EX ([MC-SQLR] 2.2.1, 2.2.2): a byte, which asks for all instances.
const ALL: [u8; 2] = [0x02, 0x03];
/// CLNT_UCAST_INST ([MC-SQLR] 2.2.3): the type, and a name that ends in a zero byte, 32 bytes at most with it.
const ONE: u8 = 0x04;
const NAME: usize = 32;
/// SVR_RESP ([MC-SQLR] 2.2.5).
const ANSWERED: u8 = 0x05;

/// The most that is read of a request (bytes).
pub const REQUEST: usize = 1 + NAME;
/// The most that is answered (bytes): what [MC-SQLR] 2.2.5 allows for one instance.
pub const ANSWER: usize = 3 + 1_024;

/// What a tool wants to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked<'a> {
    All,
    Instance(&'a str),
}

/// A request; none for what is no such request. The port of the administrator's connection (CLNT_UCAST_DAC) is not told.
pub fn asked(request: &[u8]) -> Option<Asked<'_>> {
    let (&kind, name) = request.split_first()?;
    if ALL.contains(&kind) {
        return name.is_empty().then_some(Asked::All);
    }
    // some clients leave the zero away
    let name = Some(name).filter(|name| kind == ONE && name.len() <= NAME)?;
    let name = std::str::from_utf8(name.strip_suffix(&[0]).unwrap_or(name)).ok()?;
    is_name(name).then_some(Asked::Instance(name))
}

fn is_name(name: &str) -> bool {
    (1..NAME).contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic() && c != ';' && c != '\\')
}

/// Where these instances are, as many as there is room for; none when that is none.
pub fn answer<'a>(server: &str, instances: impl IntoIterator<Item = &'a str>, port: u16) -> Option<Vec<u8>> {
    let mut answer = vec![ANSWERED, 0, 0];
    for instance in instances.into_iter().filter(|name| is_name(name)) {
        // a version is asked for, and means nothing: the login tells the target's own
        let one = format!("ServerName;{server};InstanceName;{instance};IsClustered;No;Version;16.0.1000.6;tcp;{port};;");
        if answer.len() + one.len() <= ANSWER {
            answer.extend(one.into_bytes());
        }
    }
    let size = u16::try_from(answer.len() - 3).ok().filter(|size| *size > 0)?;
    answer[1..3].copy_from_slice(&size.to_le_bytes());
    Some(answer)
}

/// What was answered: instances with their ports.
pub fn answered(answer: &[u8]) -> Option<Vec<(String, u16)>> {
    let mut reader = Reader(answer);
    if reader.u8()? != ANSWERED {
        return None;
    }
    let size = usize::from(reader.u16()?);
    let data = std::str::from_utf8(reader.0.get(..size)?).ok()?;
    let one = |text: &str| {
        let parts: Vec<&str> = text.split(';').collect();
        let find = |key: &str| parts.chunks_exact(2).find(|pair| pair[0] == key).map(|pair| pair[1]);
        Some((find("InstanceName")?.to_owned(), find("tcp")?.parse().ok()?))
    };
    data.split_terminator(";;").map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_asked_for_by_name_and_answered_with_its_port() {
        assert_eq!(asked(b"\x04uat\0"), Some(Asked::Instance("uat")));
        assert_eq!(asked(b"\x04uat"), Some(Asked::Instance("uat")));
        assert_eq!((asked(b"\x02"), asked(b"\x03")), (Some(Asked::All), Some(Asked::All)));
        let said = answer("db", ["uat"], 7433).unwrap();
        // the example of [MC-SQLR] 4.1, with other names
        assert_eq!(&said[3..], b"ServerName;db;InstanceName;uat;IsClustered;No;Version;16.0.1000.6;tcp;7433;;");
        assert_eq!(usize::from(u16::from_le_bytes([said[1], said[2]])), said.len() - 3);
        let both = answer("db", ["uat", "golden", "no;name", ""], 7433).unwrap();
        assert_eq!(answered(&both), Some(vec![("uat".to_owned(), 7433), ("golden".to_owned(), 7433)]));
    }

    #[test]
    fn what_is_no_such_request_has_no_answer_and_none_is_large() {
        let long = [&[4][..], &[b'a'; 32], &[0]].concat();
        for request in [&b""[..], b"\x02\x02", b"\x01", b"\x0f\x01uat\0", b"\x04", b"\x04\0", b"\x04a;b\0", b"\x04a\\b\0", b"\x04\xff\0", &long] {
            assert_eq!(asked(request), None, "{request:?}");
        }
        assert_eq!(answer("db", [], 7433), None);
        assert_eq!(answer(&"s".repeat(2_000), ["uat"], 1), None);
        let many: Vec<String> = (0..1_000).map(|n| format!("environment-{n}")).collect();
        let said = answer("db", many.iter().map(String::as_str), u16::MAX).unwrap();
        assert!(said.len() <= ANSWER && answered(&said).unwrap().len() == 11, "{}", said.len());
        assert_eq!(answered(b"\x05\xff\xffx"), None);
    }
}
