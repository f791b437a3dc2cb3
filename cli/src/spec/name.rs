//! A made-up name for a service that was given none.

const HOW: [&str; 32] = [
    "agile", "amber", "bold", "brave", "bright", "brisk", "calm", "clear", "clever", "coral", "deep", "eager", "early",
    "fleet", "gentle", "golden", "keen", "kind", "lively", "lucid", "merry", "nimble", "proud", "quick", "quiet",
    "silver", "steady", "still", "swift", "tidal", "vivid", "wise",
];
const WHO: [&str; 32] = [
    "anchovy", "barbel", "bream", "capelin", "char", "cod", "dace", "dorado", "eel", "flounder", "goby", "grayling",
    "haddock", "hake", "halibut", "herring", "ide", "lamprey", "ling", "mackerel", "minnow", "mullet", "perch", "pike",
    "pilchard", "plaice", "roach", "salmon", "smelt", "sprat", "tench", "turbot",
];

/// A DNS label out of any number: a million of them, before they repeat.
pub(crate) fn name(random: u64) -> String {
    let pick = |list: &[&'static str; 32], shift: u32| list[usize::from((random >> shift) as u8 % 32)];
    format!("{}-{}-{}", pick(&HOW, 0), pick(&WHO, 8), (random >> 16) % 1000)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_made_up_name_is_a_name() {
        for i in 0..4096u64 {
            let name = super::name(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            assert!(name.parse::<shoal_common::Name>().is_ok(), "{name}");
        }
    }
}
