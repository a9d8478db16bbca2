//! Names that come near to one that is none: "did you mean …?". Knows nothing of what the names are of.

/// Names that a message tells, and the longest of them, in bytes.
const TOLD: usize = 3;
const LONGEST_TOLD: usize = 200;
/// Characters of a name that are compared with another, and names that are compared character by character.
pub(crate) const COMPARED: usize = 64;
const NEAR: usize = 1000;

/// Up to three of `names` that come near to `word`, nearest first. Of long names the start is compared, and of many names those whose letters
/// are nearest, up to a number.
pub(crate) fn suggest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = |name: &str| name.chars().take(COMPARED).collect::<String>().to_lowercase();
    let wanted = lower(word);
    let most = wanted.chars().count().max(3) / 3 + 1;
    let letters = Letters::of(&wanted);
    let mut likely: Vec<(usize, bool, String, &str)> = names
        .filter_map(|name| {
            let lower = lower(name);
            let contained = wanted.len() > 2 && (lower.contains(&wanted) || wanted.contains(&lower));
            let least = letters.distance(&Letters::of(&lower));
            (contained || least <= most).then_some((least, contained, lower, name))
        })
        .collect();
    likely.sort_unstable();
    let mut near: Vec<(usize, &str)> = likely
        .into_iter()
        .take(NEAR)
        .map(|(_, contained, lower, name)| (strsim::damerau_levenshtein(&wanted, &lower), contained, name))
        .filter_map(|(distance, contained, name)| (distance <= most || contained).then_some((distance, name)))
        .collect();
    near.sort_unstable();
    near.into_iter().take(TOLD).filter(|(_, name)| name.len() <= LONGEST_TOLD).map(|(_, name)| name).collect()
}

/// How often each letter occurs in a text.
struct Letters([u8; 32]);

impl Letters {
    fn of(text: &str) -> Self {
        let mut counts = [0u8; 32];
        for letter in text.chars() {
            let count = &mut counts[(u32::from(letter) % 32) as usize];
            *count = count.saturating_add(1);
        }
        Self(counts)
    }

    /// No more than the number of edits that lead from one text to the other.
    fn distance(&self, other: &Self) -> usize {
        let pairs = || self.0.iter().zip(&other.0);
        let more: usize = pairs().map(|(one, other)| usize::from(one.saturating_sub(*other))).sum();
        let fewer: usize = pairs().map(|(one, other)| usize::from(other.saturating_sub(*one))).sum();
        more.max(fewer)
    }
}

/// `: did you mean …?`, or nothing.
pub(crate) fn did_you_mean(near: &[&str]) -> String {
    if near.is_empty() { String::new() } else { format!(": did you mean `{}`?", near.join("`, `")) }
}

/// `: did you mean …?`, or all the names that there are.
pub(crate) fn did_you_mean_or<'a>(word: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    let near = suggest(word, names.clone());
    if near.is_empty() {
        format!(": there are `{}`", names.collect::<Vec<_>>().join("`, `"))
    } else {
        did_you_mean(&near)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_of_many_names_is_found() {
        let names: Vec<String> = (0..60_000).map(|index| format!("tool_{index}")).collect();
        let near = suggest("tool_59876x", names.iter().map(String::as_str));
        assert_eq!(near.first(), Some(&"tool_59876"), "{near:?}");
        let long = "x".repeat(10 << 20);
        assert!(suggest(&long, [long.as_str()].into_iter()).is_empty());
    }
}
