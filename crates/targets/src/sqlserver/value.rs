//! Values of any type as text, as `CONVERT(nvarchar(max), …)` would write them (dates as style 121 does; CAST and CONVERT, Transact-SQL
//! reference): not every statement whose answer is read can cast its columns (RESTORE FILELISTONLY), and an operator's script answers as it likes.

use tiberius::{ColumnData, numeric::Numeric};

pub fn words(value: &ColumnData<'static>) -> Option<String> {
    match value {
        ColumnData::U8(value) => value.map(|value| value.to_string()),
        ColumnData::I16(value) => value.map(|value| value.to_string()),
        ColumnData::I32(value) => value.map(|value| value.to_string()),
        ColumnData::I64(value) => value.map(|value| value.to_string()),
        ColumnData::F32(value) => value.map(|value| value.to_string()),
        ColumnData::F64(value) => value.map(|value| value.to_string()),
        ColumnData::Bit(value) => value.map(|value| u8::from(value).to_string()),
        ColumnData::String(value) => value.as_deref().map(str::to_owned),
        ColumnData::Guid(value) => value.map(|value| value.to_string().to_uppercase()),
        ColumnData::Binary(value) => value.as_deref().map(|bytes| format!("0x{}", daypass_core::secret::hex(bytes).to_uppercase())),
        ColumnData::Numeric(value) => value.map(decimal),
        ColumnData::Xml(value) => value.as_deref().map(ToString::to_string),
        ColumnData::DateTime(value) => value.map(|at| moment(EPOCH_1900 + i64::from(at.days()), &thousandths(at.seconds_fragments()))),
        ColumnData::SmallDateTime(value) => value.map(|at| moment(EPOCH_1900 + i64::from(at.days()), &clock(u64::from(at.seconds_fragments()) * 60, 0, 0))),
        ColumnData::Date(value) => value.map(|date| day(i64::from(date.days()))),
        ColumnData::Time(value) => value.map(|time| since_midnight(time.increments(), time.scale())),
        ColumnData::DateTime2(value) => value.map(|at| moment(i64::from(at.date().days()), &since_midnight(at.time().increments(), at.time().scale()))),
        // it comes as UTC and its offset in minutes ([MS-TDS] 2.2.5.5.1.9), and is shown as the clock on that wall
        ColumnData::DateTimeOffset(value) => value.map(|at| {
            let (utc, offset) = (at.datetime2(), i64::from(at.offset()));
            let second = 10_u64.pow(u32::from(utc.time().scale()));
            let all = i64::from(utc.date().days()) * DAY + (utc.time().increments() / second) as i64 + offset * 60;
            let wall = clock(all.rem_euclid(DAY) as u64, utc.time().increments() % second, utc.time().scale());
            let sign = if offset < 0 { '-' } else { '+' };
            format!("{} {sign}{:02}:{:02}", moment(all.div_euclid(DAY), &wall), offset.abs() / 60, offset.abs() % 60)
        }),
    }
}

/// Seconds of a day.
const DAY: i64 = 86_400;
/// 1900-01-01, in days from 0001-01-01.
const EPOCH_1900: i64 = 693_595;

fn moment(number: i64, clock: &str) -> String {
    format!("{} {clock}", day(number))
}

/// A day that is so many after 0001-01-01, in the calendar of today carried back (date, Transact-SQL reference).
fn day(number: i64) -> String {
    let days = jiff::Span::new().try_days(number).and_then(|days| jiff::civil::date(1, 1, 1).checked_add(days));
    days.map_or_else(|_| format!("day {number}"), |day| day.to_string())
}

fn clock(seconds: u64, fraction: u64, scale: u8) -> String {
    let whole = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if scale == 0 { whole } else { format!("{whole}.{fraction:0width$}", width = usize::from(scale)) }
}

fn since_midnight(increments: u64, scale: u8) -> String {
    let second = 10_u64.pow(u32::from(scale));
    clock(increments / second, increments % second, scale)
}

/// Of a `datetime`: three hundredths of a second, shown to the nearest thousandth.
fn thousandths(fragments: u32) -> String {
    let all = (u64::from(fragments) * 10 + 1) / 3;
    clock(all / 1_000, all % 1_000, 3)
}

fn decimal(number: Numeric) -> String {
    let (value, scale) = (number.value(), usize::from(number.scale()));
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;
    use tiberius::time::{Date, DateTime, DateTime2, DateTimeOffset, SmallDateTime, Time};

    #[test]
    fn every_type_reads_as_management_studio_shows_it() {
        let is = |value: ColumnData<'static>, text: &str| assert_eq!(words(&value).as_deref(), Some(text));
        is(ColumnData::U8(Some(255)), "255");
        is(ColumnData::I64(Some(i64::MIN)), "-9223372036854775808");
        is(ColumnData::Bit(Some(true)), "1");
        is(ColumnData::F32(Some(42.5)), "42.5");
        is(ColumnData::Guid(Some(uuid::uuid!("0e984725-c51c-4bf4-9960-e1c80e27aba0"))), "0E984725-C51C-4BF4-9960-E1C80E27ABA0");
        is(ColumnData::Binary(Some(Cow::Borrowed(&[0, 0xab]))), "0x00AB");
        is(ColumnData::Numeric(Some(Numeric::new_with_scale(123_456_789_012_345_678_901, 0))), "123456789012345678901");
        is(ColumnData::Numeric(Some(Numeric::new_with_scale(-5, 3))), "-0.005");
        is(ColumnData::String(Some(Cow::Borrowed("Grüße"))), "Grüße");
        // the first, the last and a leap day; ticks of a three hundredth are shown as .003 and .007
        is(ColumnData::DateTime(Some(DateTime::new(0, 0))), "1900-01-01 00:00:00.000");
        is(ColumnData::DateTime(Some(DateTime::new(-53_690, 1))), "1753-01-01 00:00:00.003");
        is(ColumnData::DateTime(Some(DateTime::new(46_352, 86_400 * 300 - 1))), "2026-11-28 23:59:59.997");
        is(ColumnData::SmallDateTime(Some(SmallDateTime::new(36_583, 61))), "2000-02-29 01:01:00");
        is(ColumnData::Date(Some(Date::new(0))), "0001-01-01");
        is(ColumnData::Date(Some(Date::new(3_652_058))), "9999-12-31");
        is(ColumnData::Time(Some(Time::new(1, 7))), "00:00:00.0000001");
        is(ColumnData::DateTime2(Some(DateTime2::new(Date::new(730_178), Time::new(3_599, 0)))), "2000-02-29 00:59:59");
        // 23:30 UTC is the next day an hour further east
        let utc = DateTime2::new(Date::new(730_178), Time::new(84_600_000, 3));
        is(ColumnData::DateTimeOffset(Some(DateTimeOffset::new(utc, 60))), "2000-03-01 00:30:00.000 +01:00");
        is(ColumnData::DateTimeOffset(Some(DateTimeOffset::new(utc, -330))), "2000-02-29 18:00:00.000 -05:30");
        assert_eq!(words(&ColumnData::I32(None)), None);
    }
}
