//! Numbers, printed as they come and kept for the JSON.

use anyhow::Result;
use serde_json::{Map, Value, json};

pub struct Report {
    numbers: Map<String, Value>,
    bars: Vec<(String, bool)>,
}

/// The middle of what was measured.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

pub fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * at).round() as usize).copied().unwrap_or(f64::NAN)
}

impl Report {
    pub fn new() -> Report {
        let machine = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = machine.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown").to_owned();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!("{} · {cores} cores · {model}\n", jiff::Timestamp::now().strftime("%Y-%m-%d"));
        let mut numbers = Map::new();
        numbers.insert("date".into(), json!(jiff::Timestamp::now().to_string()));
        numbers.insert("cores".into(), json!(cores));
        numbers.insert("cpu".into(), json!(model));
        Report { numbers, bars: Vec::new() }
    }

    pub fn title(&self, title: &str) {
        println!("\n{title}");
    }

    /// A line of the table.
    pub fn row(&mut self, name: &str, value: f64, unit: &str) {
        println!("  {name:<58} {value:>12.2} {unit}");
        self.numbers.insert(name.to_owned(), json!({ "value": value, "unit": unit }));
    }

    /// A promise, and whether it was kept.
    pub fn bar(&mut self, name: &str, value: f64, most: f64) {
        self.judge(format!("{name}: {value:.2} (at most {most:.2})"), value <= most);
    }

    /// The same where more is better.
    pub fn bar_least(&mut self, name: &str, value: f64, least: f64) {
        self.judge(format!("{name}: {value:.2} (at least {least:.2})"), value >= least);
    }

    fn judge(&mut self, text: String, kept: bool) {
        self.bars.push((text, kept));
    }

    pub fn finish(mut self) -> Result<()> {
        println!("\nBars");
        for (text, kept) in &self.bars {
            println!("  {}  {text}", if *kept { "kept  " } else { "MISSED" });
        }
        let bars: Vec<Value> = self.bars.iter().map(|(text, kept)| json!({ "bar": text, "kept": kept })).collect();
        self.numbers.insert("bars".into(), bars.into());
        std::fs::create_dir_all("target")?;
        std::fs::write("target/bench.json", serde_json::to_string_pretty(&Value::Object(self.numbers))?)?;
        println!("\nThe same as JSON: target/bench.json");
        Ok(())
    }
}
