//! Names that come near to one that is none: "did you mean …?". Knows nothing of what the names are of.

/// Up to three of `names` that come near to `word`, nearest first.
pub(crate) fn suggest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = word.to_lowercase();
    let mut near: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let distance = strsim::damerau_levenshtein(&wanted, &lower);
            let contained = wanted.len() > 2 && (lower.contains(&wanted) || wanted.contains(&lower));
            (distance <= wanted.chars().count().max(3) / 3 + 1 || contained).then_some((distance, name))
        })
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, name)| name).collect()
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
