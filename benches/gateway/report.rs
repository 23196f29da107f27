//! Tables: each proxy's median and range, and its ratio to HAProxy's.

/// An anchor below this is noise, and a ratio to it as well.
const LEAST: f64 = 0.5;

/// One measured quantity, by proxy and round.
pub struct Table {
    title: String,
    rows: Vec<(String, Vec<f64>)>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new() }
    }

    /// Adds what one round gave for one proxy.
    pub fn add(&mut self, proxy: &str, value: f64) {
        match self.rows.iter_mut().find(|(name, _)| name == proxy) {
            Some((_, values)) => values.push(value),
            None => self.rows.push((proxy.to_owned(), vec![value])),
        }
    }

    /// Prints it; ratios are of the same round.
    pub fn print(&self) {
        println!("\n{}", self.title);
        // What HAProxy does not do has no ratio.
        let anchor = self.rows.iter().find(|(name, _)| name.starts_with("haproxy")).map(|(_, values)| values);
        let anchor = anchor.filter(|values| values.iter().all(|value| *value >= LEAST));
        for (name, values) in &self.rows {
            let ratios: Vec<f64> =
                anchor.map_or(Vec::new(), |anchor| values.iter().zip(anchor).map(|(a, b)| a / b).collect());
            let ratio = if ratios.is_empty() || name.starts_with("haproxy") {
                String::new()
            } else {
                format!("   ÷ HAProxy {}", shown(&ratios, 2))
            };
            println!("  {name:<20} {}{ratio}", shown(values, 1));
        }
    }
}

/// Median and range.
fn shown(values: &[f64], digits: usize) -> String {
    let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    format!("{:>8.digits$} ({least:.digits$}–{most:.digits$})", quantile(values, 0.5))
}

/// The value below which that share of all values lies.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let place = share * sorted.len().saturating_sub(1) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
    at(low) + (at(high) - at(low)) * place.fract()
}
