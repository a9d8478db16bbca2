//! The library through scripts: every function at least once, and all of them with whatever a hostile script may give.

use crate::tests::outcome;

const ROWS: &str =
    "let rows = [#{n: \"a\", k: 2, u: #{id: 1}}, #{n: \"b\", k: 1, u: #{id: 2}}, #{n: \"c\", k: 2, u: ()}];";

/// Runs every script and names all that answer otherwise.
#[track_caller]
fn check_all(cases: &[(&str, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(source, expected)| {
            let given = outcome(&format!("{ROWS} {source}")).0;
            (given != *expected).then(|| format!("{source}\n  gives    {given}\n  expected {expected}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The message of the error that every script ends with.
#[track_caller]
fn check_errors(cases: &[(&str, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(source, expected)| {
            let given = outcome(&format!("{ROWS}\n{source}")).0;
            let message = given.split_once(": ").map_or(given.as_str(), |(_, message)| message);
            let placed = given.starts_with("runtime at 2:");
            (!placed || message != *expected).then(|| format!("{source}\n  gives    {given}\n  expected {expected}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lists_are_ordered() {
    check_all(&[
        ("rows.sort_by(\"k\").pluck(\"n\")", r#"["b","a","c"]"#),
        ("rows.sort_by(|r| -r.k).map(\"n\")", r#"["a","c","b"]"#),
        ("rows.sort_by(\"k\", \"desc\").map(|r| r.n)", r#"["a","c","b"]"#),
        ("rows.sort_by(\"k\", \"asc\").map(|r| r.n)", r#"["b","a","c"]"#),
        ("rows.sort_by_desc(\"n\").map(|r| r.n)", r#"["c","b","a"]"#),
        ("rows.sort_by(\"u.id\").map(|r| r.n)", r#"["c","a","b"]"#),
        ("rows.sort_by(|r| [r.k, -(r.u?.id ?? 9)]).map(|r| r.n)", r#"["b","c","a"]"#),
        ("rows.sort_by(|a, b| a.k - b.k).map(|r| r.n)", r#"["b","a","c"]"#),
        ("rows.sort_by(|a, b| a.k - b.k, \"desc\").map(|r| r.n)", r#"["a","c","b"]"#),
        ("let s = rows.sort_by(\"k\"); rows[0].n", r#""a""#),
        ("let a = [3, 1, 2]; let s = a.sort(); [a, s]", "[[1,2,3],[1,2,3]]"),
        ("let a = [3, 1, 2]; let s = a.sort(|x, y| y - x); [a, s]", "[[3,2,1],[3,2,1]]"),
        ("let a = [3, 1, 2]; a.sort(|x| -x); a", "[3,2,1]"),
        ("rows.sort(\"k\"); rows.map(|r| r.n)", r#"["b","a","c"]"#),
        (
            "let a = [3, 1, 2]; [a.sorted(), sorted(a), a.sorted_desc(), a.sorted(|x| -x), a.order(), a.order_desc(), a]",
            "[[1,2,3],[1,2,3],[3,2,1],[3,2,1],[1,2,3],[3,2,1],[3,1,2]]",
        ),
        ("let a = [3, 1, 2]; let s = a.sort_desc(); [a, s]", "[[3,2,1],[3,2,1]]"),
        ("let a = [3, 1, 2]; a.sort_desc(|x| -x)", "[1,2,3]"),
        ("let a = [3, 1, 2]; let r = a.reverse(); [a, r, a.reversed()]", "[[2,1,3],[2,1,3],[3,1,2]]"),
        (
            "[[1], \"b\", 0.0 / 0.0, 2, 1.5, (), true, 'a', #{x: 1}, -1].sorted()",
            r#"[null,true,-1,1.5,2,null,"a","b",[1],{"x":1}]"#,
        ),
        (
            "[9007199254740993, 9007199254740992.0, 9007199254740992].sorted()",
            "[9007199254740992.0,9007199254740992,9007199254740993]",
        ),
        ("const A = [2, 1]; A.sorted()", "[1,2]"),
        ("[[2, 1], [1, 9], [1]].sorted()", "[[1],[1,9],[2,1]]"),
        ("[1, 2, 3, 4, 5].shuffled().sorted()", "[1,2,3,4,5]"),
        ("let a = [1, 2, 3, 4, 5]; let s = a.shuffle(); s == a", "true"),
        ("let a = range(100); a.shuffle(); a != range(100)", "true"),
        (
            "[[7].sample(), [7].choice(), [].sample(), [1, 2].sample(5).sorted(), [1, 2, 3].sample(-1)]",
            "[7,7,null,[1,2],[]]",
        ),
    ]);
    check_errors(&[
        ("[1].sort_by(\"x\")", "`sort_by` reads `x` of maps; element 0 is an integer"),
        ("rows.sort_by(\"n.x\")", "`sort_by` reads `n.x`, which leads through what is no map in element 0"),
        (
            "rows.sort_by(7)",
            "`sort_by` takes a function such as `|x| x.name`, or the name of a property; it was given an integer",
        ),
        ("rows.sort_by(\"k\", \"down\")", "`sort_by` sorts \"asc\" or \"desc\""),
        ("rows.sort_by(|a, b, c| 1)", "the function given to `sort_by` takes 1 or 2 parameters; this one takes 3"),
        (
            "[2, 1].sort_by(|a, b| \"x\")",
            "the function given to `sort_by` returns a number: below 0, 0, or above; it returned a string",
        ),
        (
            "let a = []; for i in 0..200 { a = [a]; } [a, 1].sorted()",
            "values that nest more than 100 levels deep can't be compared",
        ),
    ]);
}

#[test]
fn lists_are_grouped_and_reckoned() {
    check_all(&[
        ("let g = rows.group_by(\"k\"); [g.keys(), g[\"2\"].map(|r| r.n)]", r#"[["1","2"],["a","c"]]"#),
        ("rows.group_by(|r| r.u?.id).keys()", r#"["1","2","null"]"#),
        ("rows.count_by(\"k\")", r#"{"1":1,"2":2}"#),
        ("rows.index_by(\"n\").b.k + rows.key_by(|r| r.n).a.k", "3"),
        ("rows.unique_by(\"k\").map(|r| r.n)", r#"["a","b"]"#),
        ("[1, 1.0, \"1\", 2, 1, #{a: 1}, #{a: 1}, [()], [()]].unique()", r#"[1,"1",2,{"a":1},[null]]"#),
        (
            "[rows.sum(\"k\"), rows.sum(|r| r.k), rows.sum_by(\"k\"), [].sum(), sum([1, 2]), [1, 2.5].sum()]",
            "[5,5,5,0,3,3.5]",
        ),
        ("[9223372036854775807, 1].sum()", "9.223372036854776e+18"),
        ("[9223372036854775807, 1, -5].sum()", "9223372036854775803"),
        (
            "[rows.avg(\"k\"), [1, 2].avg(), [].avg(), [2].mean(), rows.avg_by(|r| r.k + 1)]",
            "[1.6666666666666667,1.5,null,2.0,2.6666666666666665]",
        ),
        (
            "[[3, 1.5, 2].min(), [3, 1.5, 2].max(), [].min(), [\"b\", \"a\"].max(), min([2, 1]), max(1, 2), min(3, 1, 2), max(1, 5.5, 2)]",
            r#"[1.5,3,null,"b",1,2,1,5.5]"#,
        ),
        (
            "[rows.min(\"k\"), rows.max(|r| r.n), rows.min_by(\"k\").n, rows.max_by(|r| r.k).n, [].max_by(\"k\")]",
            r#"[1,"c","b","a",null]"#,
        ),
        ("rows.map(|r, i| `${i}${r.n}`)", r#"["0a","1b","2c"]"#),
        ("rows.map(|| this.n)", r#"["a","b","c"]"#),
        ("fn name(r) { r.n } rows.map(name)", r#"["a","b","c"]"#),
        ("[\"a\"].map(Fn(\"to_upper\"))", r#"["A"]"#),
        ("[[1, 2], 3, []].flat_map(|x| x)", "[1,2,3]"),
        ("rows.flatMap(|r| [r.n, r.k]).len()", "6"),
        ("[1, 2].find_map(|x| if x > 1 { x * 10 })", "20"),
        (
            "let out = []; [5, 6].for_each(|x| out.push(x)); [5, 6].forEach(|x, i| out.push(x * 10 + i)); out",
            "[5,6,50,61]",
        ),
        ("let a = [1, 2]; a.for_each(|| this *= 2); a", "[2,4]"),
        (
            "[[1, 2, 3].reduce(|s, x| s + x, 0), [1, 2, 3].reduce(|s, x, i| s + x * i, 0), [\"a\", \"b\"].reduce_rev(|s, x| s + x, \"\")]",
            r#"[6,8,"ba"]"#,
        ),
        ("[1, 2].reduce(|s, x| if s == () { x } else { s + x })", "3"),
        ("[1, 2].reduce_rev(|s, x| x)", "1"),
    ]);
    check_errors(&[
        ("[1, \"x\"].sum()", "`sum` takes numbers; element 1 is a string"),
        ("rows.sum(\"n\")", "`sum` takes numbers; `n` of element 0 is a string"),
        ("rows.avg(|r| r.u)", "`avg` takes numbers; what the function returned for element 0 is a map"),
        ("[1, \"x\"].max()", "`max` compares numbers, or strings, or dates, all of one kind; element 1 is another"),
        ("max(1, \"x\", 2)", "`max` takes numbers, or an array; it was given a string"),
        ("[1].map(|a, b, c| a)", "the function given to `map` takes 1 or 2 parameters; this one takes 3"),
    ]);
}

#[test]
fn predicates_answer_true_or_false() {
    check_all(&[
        (
            "[[1, 2, 3].filter(|x| x > 1), [1, 2, 3].filter(|x, i| i == 0), [1, 2, 3].filter(|| this > 2), [1, 2].reject(|x| x > 1)]",
            "[[2,3],[1],[3],[1]]",
        ),
        ("[#{a: true, n: 1}, #{a: false, n: 2}].filter(\"a\").map(\"n\")", "[1]"),
        ("[1, 2, 3].partition(|x| x > 1)", "[[2,3],[1]]"),
        (
            "[[1].some(|x| x > 0), [1].any(|x| x > 1), [1].all(|x| x > 0), [1].every(|x| x > 1), [1].none(|x| x > 1), [].some(|x| true), [].all(|x| false)]",
            "[true,false,true,false,true,false,true]",
        ),
        (
            "[[1, 2, 3].find(|x| x > 1), [1].find(|x| x > 1), [1, 2, 3].find(|x| x > 0, 1), [1, 2].find_last(|x| x > 0), [1, 2].find_index(|x| x > 1), [1].findIndex(|x| x > 1)]",
            "[2,null,2,2,1,-1]",
        ),
        (
            "[[1, 2].index_of(2), [1, 2].indexOf(|x| x > 1), [1, 2, 1].index_of(1, 1), [\"a\"].index_of(\"a\"), [\"a\", \"a\"].index_of(\"a\", -1), [1].index_of(|x| x > 0, 5)]",
            "[1,1,2,0,1,-1]",
        ),
        (
            "[[1, #{a: 1}].contains(#{a: 1}), [1].includes(1.0), [1].contains(2), 1 in [1], \"x\" in [\"y\"]]",
            "[true,true,false,true,false]",
        ),
        ("[[1, 2].count(|x| x > 1), [1, 2].count(), [\"a\", \"b\", \"a\"].count(\"a\")]", "[1,2,2]"),
        ("let a = [1, 2, 3]; let gone = a.retain(|x| x != 2); [a, gone]", "[[1,3],[2]]"),
        ("let a = [1, 2, 3]; let gone = a.drain(|x| x == 2); [a, gone]", "[[1,3],[2]]"),
        ("let a = [1, 2]; try { a.retain(|x| throw 1) } catch {} a", "[1,2]"),
    ]);
    for name in
        ["filter", "some", "all", "find", "partition", "retain", "count", "index_of", "find_index", "none", "reject"]
    {
        check_errors(&[(
            &format!("let a = [1]; a.{name}(|x| \"yes\")"),
            &format!("the function given to `{name}` returns true or false; it returned a string"),
        )]);
    }
    check_errors(&[
        ("[#{a: 1}].filter(\"a\")", "`filter` takes a property that is true or false; `a` of element 0 is an integer"),
        ("#{a: 1}.filter(|k, v| v)", "the function given to `filter` returns true or false; it returned an integer"),
    ]);
}

#[test]
fn lists_are_reshaped() {
    check_all(&[
        (
            "[[[1, [2]], 3].flatten(), [[1, [[2]]], 3].flatten(2), [[1]].flatten(0), [[1]].flat()]",
            "[[1,[2],3],[1,[2],3],[[1]],[1]]",
        ),
        ("[(), 1, false].compact()", "[1,false]"),
        ("[[\"a\"].enumerate(), enumerate([\"b\"]), [\"c\"].entries()]", r#"[[[0,"a"]],[[0,"b"]],[[0,"c"]]]"#),
        (
            "[[1, 2].zip([\"a\", \"b\", \"c\"]), zip([1], [2]), [1, 2].zip([3, 4], |a, b| a + b)]",
            r#"[[[1,"a"],[2,"b"]],[[1,2]],[4,6]]"#,
        ),
        ("[[1, 2, 3].chunks(2), [].chunks(1)]", "[[[1,2],[3]],[]]"),
        (
            "[[1, \"a\", (), 2.0, 'c', true].join(\"-\"), [1, 2].join(), [].join(\"x\"), [1, 2].join('+'), [[1], #{a: \"b\"}].join(\" \")]",
            r#"["1-a--2.0-c-true","1,2","","1+2","[1] #{\"a\": \"b\"}"]"#,
        ),
        ("[[[\"a\", 1], [2, 3]].to_map(), [[\"x\", ()]].from_entries()]", r#"[{"2":3,"a":1},{"x":null}]"#),
        (
            "[range(3), range(1, 3), range(5, 0, -2), range(0, 10, 4), range(3, 1), range(-2)]",
            "[[0,1,2],[1,2],[5,3,1],[0,4,8],[],[]]",
        ),
        ("range(9223372036854775806, 9223372036854775807)", "[9223372036854775806]"),
        (
            "range(-9223372036854775808, 9223372036854775807, 9223372036854775807)",
            "[-9223372036854775808,-1,9223372036854775806]",
        ),
        ("let s = 0; for i in range(1, 4) { s += i; } s + range(3).map(|x| x * 2).sum()", "12"),
        (
            "let a = [1, 2, 3]; [a.length, a.size, a.length(), a.len(), len(a), a.is_empty(), a.empty()]",
            "[3,3,3,3,3,false,false]",
        ),
        (
            "let a = [1, 2, 3]; [a.first(), a.last(), [].first(), [].last(), a.first(2), a.last(2), a.take(2), a.skip(2), a.drop(1), a.take(-1), a.skip(9)]",
            "[1,3,null,null,[1,2],[2,3],[1,2],[3],[2,3],[],[]]",
        ),
        (
            "let a = [1, 2, 3, 4]; [a.slice(1), a.slice(1, 3), a.slice(-2), a.slice(0, -1), a.slice(3, 1), a.slice(-9, 9)]",
            "[[2,3,4],[2,3],[3,4],[1,2,3],[],[1,2,3,4]]",
        ),
        ("[[1].get(0, 5), [1].get(1, 5), [1].get(-1, 5), [1].get(-2, 5)]", "[1,5,1,5]"),
        ("let a = [1]; a.append(2); a.append([3]); a.extend([4]); a.unshift(0); a.push(5); a", "[0,1,2,3,4,5]"),
        ("let a = [1]; a.pad(3, 0); a.pad(-1, 0); a", "[1,0,0]"),
        ("let a = [1, 1, 2, 1]; a.dedup(); a", "[1,2,1]"),
        (
            "[[1, 2, 2].difference([1]), [1, 2].except([2]), [1, 2, 3].intersect([3, 1]), [1].intersection([2]), [1, 2, 1].union([2, 3]), [1].concat([2]), [1].concat(2)]",
            "[[2,2],[1],[1,3],[],[1,2,3],[1,2],[1,2]]",
        ),
    ]);
    check_errors(&[
        ("[1].chunks(0)", "`chunks` takes a size of at least 1; it was given 0"),
        ("range(0, 10, 0)", "`range` takes a step other than 0"),
        (
            "range(5000000)",
            "`range` makes an array of at most 1000000 elements; write `for i in 0..5000000` to count further",
        ),
        ("[[1]].to_map()", "`to_map` takes an array of pairs [key, value]; element 0 is an array"),
        ("let a = []; a.pad(9223372036854775807, 1)", "`pad` makes an array of at most 1000000 elements"),
        ("[1].dedup(\"%\")", "`dedup` takes a function such as `|a, b| …`; it was given a string"),
        ("[1].reduce(\"%\", 0)", "`reduce` takes a function such as `|a, b| …`; it was given a string"),
        ("[1].reduce_rev(\"f\")", "`reduce_rev` takes a function such as `|a, b| …`; it was given a string"),
    ]);
}

#[test]
fn maps_are_read_and_made() {
    check_all(&[
        (
            "let m = #{b: 1, a: 2}; [m.entries(), m.items(), m.keys(), m.values()]",
            r#"[[["a",2],["b",1]],[["a",2],["b",1]],["a","b"],[2,1]]"#,
        ),
        (
            "let m = #{a: 1}; [m.has(\"a\"), m.contains(\"b\"), m.includes(\"a\"), m.hasOwnProperty(\"b\"), m.has_key(\"a\"), \"a\" in m]",
            "[true,false,true,false,true,true]",
        ),
        (
            "let m = #{a: 1, n: ()}; [m.get(\"a\", 5), m.get(\"b\", 5), m.get(\"n\", 5), m.len(), len(m), m.length(), m.size(), m.count(), m.empty()]",
            "[1,5,5,2,2,2,2,2,false]",
        ),
        (
            "let m = #{a: 1, b: 2, c: 3}; [m.pick([\"a\", \"x\"]), m.omit([\"a\"]), m.merge(#{a: 9}), m]",
            r#"[{"a":1},{"b":2,"c":3},{"a":9,"b":2,"c":3},{"a":1,"b":2,"c":3}]"#,
        ),
        (
            "let m = #{a: 1, b: 2}; [m.filter(|k, v| v > 1), m.filter(|k| k == \"a\"), m.map_values(|k, v| v * 10)]",
            r#"[{"b":2},{"a":1},{"a":10,"b":20}]"#,
        ),
        (
            "let m = #{a: 1, b: 2}; let gone = m.retain(|k, v| v > 1); let all = m.drain(|k, v| true); [gone, all, m]",
            r#"[{"a":1},{"b":2},{}]"#,
        ),
    ]);
}

#[test]
fn strings_are_changed() {
    check_all(&[
        (
            "let s = \" a \"; let t = s.trim(); [s, t, \" b \".trim(), \" c \".strip(), \" d\".trim_start(), \"e \".trim_end(), \" f\".lstrip(), \"g \".trimEnd()]",
            r#"[" a ","a","b","c","d","e","f","g"]"#,
        ),
        (
            "let s = \"aXa\"; let t = s.replace(\"a\", \"b\"); [s, t, \"abc\".replace(\"b\", \"\"), \"abc\".replaceAll('b', \"x\")]",
            r#"["aXa","bXb","ac","axc"]"#,
        ),
        ("const S = \" aa \"; [S.trim(), S.replace(\"a\", \"b\"), S]", r#"["aa"," bb "," aa "]"#),
        (
            "let s = \" aa \"; s.trim(); let t = |x| { x.trim(); x }; s.replace('a', \"b\"); [s, t.call(\" c \")]",
            r#"["bb","c"]"#,
        ),
        ("let m = #{replace: |a, b| a + b}; m.replace(1, 2); m.replace(1, 2)", "3"),
        ("let m = #{s: \"aa\"}; m.s.replace(\"a\", \"b\"); m.s", r#""bb""#),
        ("\"ab\".replace(\"\", \"-\")", r#""-a-b-""#),
        ("let s = \"ab\"; s.make_upper(); let l = s.make_lower(); [s, l]", r#"["ab","ab"]"#),
        (
            "let s = \"abcabc\"; [s.remove(\"b\"), s, s.truncate(2), s, \"héllo\".crop(1), \"héllo\".crop(1, 2), \"abc\".crop(-2)]",
            r#"["acac","acac","ac","ac","éllo","él","bc"]"#,
        ),
        (
            "[\"a\".upper(), \"a\".to_upper(), \"a\".toUpperCase(), \"A\".lower(), \"A\".to_lower(), \"A\".toLowerCase(), \"straße\".upper()]",
            r#"["A","A","A","a","a","a","STRASSE"]"#,
        ),
        ("[\"éab c\".capitalize(), \"hello wORLD it's\".title(), \"\".title()]", r#"["Éab c","Hello World It's",""]"#),
        (
            "[\"7\".pad_start(3, \"0\"), \"7\".padStart(3), \"a\".pad_end(4, \"xy\"), \"a\".padEnd(2, '.'), \"abc\".pad_start(2), \"a\".pad(3), \"a\".pad(3, '-')]",
            r#"["007","  7","axyx","a.","abc","a  ","a--"]"#,
        ),
        (
            "[\"ab\".repeat(2), \"ab\".repeat(0), \"ab\".repeat(-1), \"\".repeat(9223372036854775807)]",
            r#"["abab","","",""]"#,
        ),
        (
            "[\" a  b \".split(), \"a,b\".split(\",\"), \"añb\".split(\"\"), \"a b\".words(), \"a\\nb\\r\\n\".lines(), \"a-b\".split('-')]",
            r#"[["a","b"],["a","b"],["a","ñ","b"],["a","b"],["a","b"],["a","b"]]"#,
        ),
        (
            "[\"ñab\".reversed(), \"ab\".reverse(), \"héllo\".slice(1, 3), \"héllo\".slice(-2), \"héllo\".slice(0, -1), \"abc\".substring(2, 0), \"abc\".substring(1)]",
            r#"["bañ","ba","él","lo","héll","ab","bc"]"#,
        ),
        ("[\"abc\".char_at(1), \"abc\".charAt(9), \"abc\".char_at(-1), \"abc\".char_at(-9)]", r#"["b","","c",""]"#),
        (
            "[\"ñab\".length, \"ab\".size, \"ab\".length(), \"ab\".len(), len(\"ab\"), \"\".is_empty(), \"\".empty()]",
            "[3,2,2,2,2,true,true]",
        ),
        (
            "[\"abc\".startsWith(\"a\"), \"abc\".startswith('a'), \"abc\".starts_with(\"b\"), \"abc\".endsWith(\"c\"), \"abc\".endswith(\"bc\"), \"abc\".ends_with('x'), \"abc\".includes(\"b\"), \"abc\".contains('z')]",
            "[true,true,false,true,true,false,true,false]",
        ),
        (
            "[\"ñaña\".indexOf(\"a\"), \"ñaña\".last_index_of(\"a\"), \"a\".lastIndexOf(\"x\"), \"aaa\".count(\"a\"), \"ab\".index_of(\"b\")]",
            "[1,3,-1,3,1]",
        ),
        (
            "[\"a.md\".remove_suffix(\".md\"), \"v1\".remove_prefix(\"v\"), \"v1\".removeprefix(\"x\"), \"ab\".removesuffix(\"b\"), \"a\".concat(\"b\")]",
            r#"["a","1","v1","a","ab"]"#,
        ),
    ]);
    check_errors(&[
        ("\"a\".pad(5, \"\")", "`pad` takes something to fill with, such as \" \"; it was given \"\""),
        ("\"a\".pad_start(9223372036854775807)", "`pad_start` makes a text of at most 64 MiB"),
        ("\"ab\".repeat(9223372036854775807)", "a text has at most 64 MiB"),
        ("\"ab\".repeat(1000000).replace(\"a\", \"x\".repeat(1000000))", "a text has at most 64 MiB"),
        ("range(1000).map(|i| \"x\".repeat(1000000)).join()", "a text has at most 64 MiB"),
    ]);
}

#[test]
fn functions_have_other_names() {
    check_all(&[
        (
            "[[1, 2].findLast(|x| x < 2), rows.sorted_by(\"k\")[0].n, rows.order_by(\"k\")[0].n, rows.uniqueBy(\"k\").len()]",
            r#"[1,"b","b",2]"#,
        ),
        ("rows.sort_by(\"k\", \"ascending\")[0].n + rows.sort_by(\"n\", \"descending\")[0].n", r#""bc""#),
        (
            "[\"a\".ljust(2) + \"b\".rjust(2), \"a \".rstrip(), \" a\".trimStart(), \"aa\".replace_all(\"a\", \"b\"), \"A\".to_lowercase(), \"a\".to_uppercase()]",
            r#"["a  b","a","a","bb","a","A"]"#,
        ),
        (
            "[ceiling(5), add_to_date(\"2026-01-01\", 1, \"day\"), [1, \"a\"].to_debug(), #{a: \"b\"}.to_debug(), date(0).to_debug()]",
            r##"[5,"2026-01-02T00:00:00Z","[1, \"a\"]","#{\"a\": \"b\"}","1970-01-01T00:00:00Z"]"##,
        ),
    ]);
    assert_eq!(outcome("console.info(1); console.warn(2)").1, ["1", "2"]);
}

#[test]
fn templates_are_filled() {
    check_all(&[
        (
            "[format(\"{} of {}\", 1, \"b\"), \"{1}{0}\".format(1, 2), \"{a}-{b.c}\".format(#{a: 1, b: #{c: 2}}), \"{{}}\".format(), \"{x}\".format(#{})]",
            r#"["1 of b","21","1-2","{}",""]"#,
        ),
        (
            "[\"{:.2}\".format(1.005), \"{:.1}\".format(2), \"{:>5}|{:<5}|{:^5}|\".format(\"a\", \"b\", \"c\"), \"{:08.3}\".format(-3.14159), \"{:,}\".format(1234567), \"{:,.2f}\".format(-1234.5)]",
            r#"["1.00","2.0","    a|b    |  c  |","-003.142","1,234,567","-1,234.50"]"#,
        ),
        (
            "[\"{:*^7}\".format(\"x\"), \"{:+}\".format(5), \"{:x} {:X} {:b} {:o}\".format(255, 255, 5, -8), \"{:.1%}\".format(0.256), \"{:.1e}\".format(12345.0), \"{:5}|{:5}|\".format(1, \"a\"), \"{:.2}\".format(\"abc\"), \"{:d}\".format(3), \"{:s}\".format(())]",
            r#"["***x***","+5","ff FF 101 -10","25.6%","1.2e4","    1|a    |","ab","3",""]"#,
        ),
        (
            "[\"{} {} {}\".format([1, \"a\"], #{a: 1.0}, date(\"2026-01-31\"))]",
            r#"["[1, \"a\"] #{\"a\": 1.0} 2026-01-31T00:00:00Z"]"#,
        ),
    ]);
    check_errors(&[
        ("\"{} {}\".format(1)", "`format`: the template asks for value 1 (from 0), and 1 were given"),
        ("\"{a}\".format(1)", "`format`: the template asks for `a`: give a map, as in `format(\"{a}\", #{a: 1})`"),
        ("\"a } b\".format(1)", "`format`: a `}` stands alone in the template; write `}}` for a brace"),
        ("\"a { b\".format(1)", "`format`: a `{` stands alone in the template; write `{{` for a brace"),
        ("\"{:99999}\".format(1)", "`format`: a width is at most 10000"),
        (
            "\"{:q}\".format(1)",
            "`format` can't read `{:q}`: write as in {:.2}, {:>8}, {:<8}, {:^8}, {:08.3}, {:,}, {:x} or {:.1%}",
        ),
        ("\"{:x}\".format(\"a\")", "`format`: `{:x}` shows a number; it was given a string"),
        ("\"{a.b}\".format(#{a: 1})", "`format`: `a.b` leads through what is no map"),
        ("\"{0}{0}{0}\".format(\"x\".repeat(30000000))", "a text has at most 64 MiB"),
    ]);
    assert_eq!(
        outcome("print(1, \"a\", [1]); console.log(\"x\", #{a: 1}); console.error(); print(#{d: date(0)})").1,
        ["1 a [1]", "x #{\"a\": 1}", "", "#{\"d\": 1970-01-01T00:00:00Z}"]
    );
}

#[test]
fn patterns_match() {
    check_all(&[
        (
            r#"["a1".regex_test("\\d"), "ab".is_match("\\d"), "É".regex_test("(?i)é"), "ñ".regex_test("^\\w$")]"#,
            "[true,false,true,true]",
        ),
        (
            r#"["a12b3".regex_find("\\d+"), "ab".regex_find("\\d"), "a12b3".regex_find_all("\\d+"), "ab".find_all("x")]"#,
            r#"["12",null,["12","3"],[]]"#,
        ),
        (
            r#""é: k=v".regex_captures("(?<key>\\w)=(\\w)(z)?")"#,
            r#"{"end":6,"groups":["k","v",null],"names":{"key":"k"},"start":3,"text":"k=v"}"#,
        ),
        (
            r#"["a".regex_captures("b"), "éa éb".regex_captures_all("é(.)").map(|m| [m.start, m.end, m.groups[0]])]"#,
            r#"[null,[[0,2,"a"],[3,5,"b"]]]"#,
        ),
        (
            r#"["john smith".regex_replace("(\\w+) (\\w+)", "$2 $1!"), "ab".regex_replace("(?<x>a)", "[${x}$<x>$0$&$$$9]"), "a1".regex_replace("(a)(1)", "$10$2")]"#,
            r#"["smith john!","[aaaa$$9]b","a01"]"#,
        ),
        (
            r#"["a1b2".regex_replace("\\d", |m| m.text.to_int() + 1), "ab".regex_replace("", "-")]"#,
            r#"["a2b3","-a-b-"]"#,
        ),
        (r#"["a1b22c".regex_split("\\d+"), regex_escape("a.b")]"#, r#"[["a","b","c"],"a\\.b"]"#),
        (r"let n = 0; for i in range(100) { if `a${i}`.regex_test(`^a${i}$`) { n += 1 } } n", "100"),
    ]);
    check_errors(&[
        (r#""a".regex_test("(")"#, "the pattern \"(\" can't be read: unclosed group"),
        (
            r#""a".regex_find("(?=a)")"#,
            "the pattern \"(?=a)\" can't be read: look-around, including look-ahead and look-behind, is not supported; find more and look at it in the script",
        ),
        (
            r#""a".regex_find("(\\w{100}){100}")"#,
            "the pattern \"(\\\\w{100}){100}\" is too large once its repetitions are written out",
        ),
        (r#""a".regex_find("a".repeat(20000))"#, "a pattern has at most 16 KiB"),
    ]);
}

#[test]
fn numbers_are_read_and_rounded() {
    check_all(&[
        (
            "[1.005.to_fixed(1), 2.toFixed(2), 2.5.toFixed(), (-0.001).to_fixed(1), 3.to_fixed()]",
            r#"["1.0","2.00","2","0.0","3"]"#,
        ),
        (
            "[round(2.345, 1), 1234.5.round(-2), 1250.round(-2), (-1250).round(-2), 5.round(1), 1.5.round(400), 1.5.round(-400), 7.round(-40), 9223372036854775807.round(-1)]",
            "[2.3,1200.0,1300,-1300,5,1.5,0.0,0,9223372036854775807]",
        ),
        (
            "[floor(5), ceil(5), ceil(1.2), trunc(-1.5), round(5), sqrt(9), pow(2, 10), pow(2, -1), pow(2, 100), abs(-3)]",
            "[5,5,2.0,-1.0,5,3.0,1024,0.5,1.2676506002282294e+30,3]",
        ),
        (
            "[\" 42 \".to_int(), int(\"-1\"), int(3.9), int(true), parse_int(\"7\"), parseInt(\"8\"), parse_int(\"ff\", 16), int(5)]",
            "[42,-1,3,1,7,8,255,5]",
        ),
        (
            "[\"1.5\".to_float(), float(\"2\"), float(3), parse_float(\"1e3\"), parseFloat(\"4\"), Number(\"5\"), Number(\"5.5\"), Number(6)]",
            "[1.5,2.0,3.0,1000.0,4.0,5,5.5,6]",
        ),
        (
            "[str(1), str(1.0), str(\"a\"), str(()), str([1, \"a\"]), 5.toString(), String(true), str('c'), [1].to_string(), str(|x| x)]",
            r#"["1","1.0","a","","[1, \"a\"]","5","true","c","[1]","<function>"]"#,
        ),
        (
            "[bool(0), bool(1.5), bool(\"\"), bool(\"x\"), bool([]), bool(#{a: 1}), bool(()), Boolean(true), bool(0.0), isNaN(0.0 / 0.0), isNaN(1)]",
            "[false,true,false,true,false,true,false,true,false,true,false]",
        ),
        ("[type(1), typeof(\"a\"), type([])]", r#"["i64","string","array"]"#),
        ("let r = random(); r >= 0.0 && r < 1.0", "true"),
        (
            "[random_int(5, 5), random_int(1, 6), random_int(-9223372036854775808, 9223372036854775807) < 0]",
            "[5,1,true]",
        ),
        (
            "[uuid().len(), uuid().regex_test(\"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$\"), uuid() != uuid()]",
            "[36,true,true]",
        ),
        ("let a = []; for i in 0..200 { a = [a]; } a.to_string().ends_with(\"[…\" + \"]\".repeat(101))", "true"),
    ]);
    check_errors(&[
        ("\"4x\".to_int()", "`to_int` reads a whole number such as \"42\"; it was given \"4x\""),
        ("int(\"1.5\")", "`int` reads a whole number such as \"42\"; it was given \"1.5\""),
        ("int(1e300)", "`int` can't make an integer of 1e300: it has more than 64 bits"),
        ("int([])", "`int` takes a number or a whole number such as \"42\"; it was given an array"),
        ("float(\"x\")", "`float` reads a number such as \"1.5\"; it was given \"x\""),
        ("1.5.to_fixed(101)", "`to_fixed` takes 0 to 100 digits; it was given 101"),
        ("random_int(2, 1)", "`random_int` takes the least and the greatest; it was given 2 and 1"),
        ("pow(\"a\", 2)", "`pow` takes numbers; it was given a string"),
    ]);
}

#[test]
fn dates_are_read_and_moved() {
    check_all(&[
        (
            "[date(\"2026-01-31\"), date(\"2026-01-31 10:00:00\"), date(\"2026-01-31T10:00:00.5Z\"), date(\"2026-01-31T10:00:00+02:00\"), date(\"Sat, 31 Jan 2026 10:00:00 +0100\")]",
            r#"["2026-01-31T00:00:00Z","2026-01-31T10:00:00Z","2026-01-31T10:00:00.5Z","2026-01-31T10:00:00+02:00","2026-01-31T10:00:00+01:00"]"#,
        ),
        (
            "[date(0), date(1700000000), date(1700000000000), date(1.5), date(2026, 2, 28), parse_date(\"31/12/2025\", \"%d/%m/%Y\"), parse_date(\"2026-01-01 05:06 +0100\", \"%Y-%m-%d %H:%M %z\"), parse_date(\"2026-01-31\")]",
            r#"["1970-01-01T00:00:00Z","2023-11-14T22:13:20Z","2023-11-14T22:13:20Z","1970-01-01T00:00:01.5Z","2026-02-28T00:00:00Z","2025-12-31T00:00:00Z","2026-01-01T05:06:00+01:00","2026-01-31T00:00:00Z"]"#,
        ),
        ("now()", r#""2026-11-22T12:00:00.000001Z""#),
        (
            "let d = date(\"2026-01-31T10:20:30.4+02:00\"); [d.year, d.month, d.day, d.hour, d.minute, d.second, d.millisecond, d.weekday, d.week, d.day_of_year, d.offset, d.date, d.timestamp, d.timestamp_ms, d.iso, d.toISOString(), d.getTime()]",
            r#"[2026,1,31,10,20,30,400,"Saturday",5,31,7200,"2026-01-31",1769847630,1769847630400,"2026-01-31T10:20:30.4+02:00","2026-01-31T10:20:30.4+02:00",1769847630400]"#,
        ),
        (
            "let d = date(\"2026-01-31T10:00:00Z\"); [d.format(\"%Y-%m-%d\"), d.format(\"%A, %d %B %Y %H:%M %z\"), format_date(\"2026-01-31\", \"%d.%m.%y\"), `${d}`, str(d), d.to_string()]",
            r#"["2026-01-31","Saturday, 31 January 2026 10:00 +0000","31.01.26","2026-01-31T10:00:00Z","2026-01-31T10:00:00Z","2026-01-31T10:00:00Z"]"#,
        ),
        (
            "let d = date(\"2026-01-31\"); [d.add(1, \"day\"), d.add(1, \"months\"), d.add(#{days: 1, hours: 2, months: 1}), d.sub(1, \"year\"), d.subtract(1.5, \"hours\"), d.add(2, \"weeks\"), d.sub(#{minutes: 1}), d.add(5, \"milliseconds\"), date_add(\"2026-01-01\", 1, \"sec\")].map(|d| d.iso)",
            r#"["2026-02-01T00:00:00Z","2026-02-28T00:00:00Z","2026-03-01T02:00:00Z","2025-01-31T00:00:00Z","2026-01-30T22:30:00Z","2026-02-14T00:00:00Z","2026-01-30T23:59:00Z","2026-01-31T00:00:00.005Z","2026-01-01T00:00:01Z"]"#,
        ),
        (
            "let d = date(\"2026-03-01\"); [d.diff(\"2026-01-31\", \"days\"), d.diff(date(\"2026-03-02\"), \"hours\"), d.diff(\"2025-01-31\", \"months\"), d.diff(\"2024-03-02\", \"years\"), days_between(\"2026-01-01\", \"2026-01-11\"), date_diff(\"2026-01-02\", \"2026-01-01\", \"minutes\")]",
            "[29.0,-24.0,13.0,1.0,10.0,1440.0]",
        ),
        (
            "let d = date(\"2026-01-31T10:20:30+02:00\"); [d.start_of(\"hour\"), d.start_of(\"day\"), d.start_of(\"week\"), d.start_of(\"month\"), d.start_of(\"year\"), d.to_utc(), d.to_offset(-5), d.to_offset(5.5)]",
            r#"["2026-01-31T10:00:00+02:00","2026-01-31T00:00:00+02:00","2026-01-26T00:00:00+02:00","2026-01-01T00:00:00+02:00","2026-01-01T00:00:00+02:00","2026-01-31T08:20:30Z","2026-01-31T03:20:30-05:00","2026-01-31T13:50:30+05:30"]"#,
        ),
        (
            "let d = date(\"2026-01-31\"); [d < date(\"2026-02-01\"), d == date(\"2026-01-31T02:00:00+02:00\"), d >= \"2026-01-31\", \"2026-02-01\" < d, d != \"2026-01-30\", \"2026-01-30\" == d, d == \"soon\", \"soon\" != d, d <= d, d > \"2026-01-30\"]",
            "[true,true,true,false,true,false,false,true,true,true]",
        ),
        (
            "[[date(\"2026-02-01\"), date(\"2026-01-01\")].sorted().map(|d| d.month), [date(5), date(7)].max().timestamp, [date(5), date(5)].unique().len(), [date(5)].contains(date(5))]",
            "[[1,2],7,1,true]",
        ),
        (
            "[[#{d: date(\"2026-01-05\")}, #{d: date(\"2026-01-06\")}].group_by(|x| x.d.format(\"%Y-%m\")).keys(), type_of(now())]",
            r#"[["2026-01"],"date"]"#,
        ),
        ("github.dup(#{d: date(0)}).arguments", r#"{"d":"1970-01-01T00:00:00Z"}"#),
    ]);
    check_errors(&[
        (
            "date(\"soon\")",
            "`date` can't read the date \"soon\": write as in \"2026-01-31\", \"2026-01-31 10:00:00\" or \"2026-01-31T10:00:00+02:00\", or use parse_date(text, \"%d/%m/%Y\")",
        ),
        (
            "date([])",
            "`date` takes a date, a text such as \"2026-01-31\", or seconds since 1970; it was given an array",
        ),
        ("date(9223372036854775807)", "`date`: dates go from the year -9999 to 9999"),
        ("date(2026, 2, 30)", "there is no day 2026-2-30"),
        (
            "now().add(1, \"eon\")",
            "`add` knows milliseconds, seconds, minutes, hours, days, weeks, months and years, and no \"eon\"",
        ),
        ("now().add(1.5, \"months\")", "`add` takes a whole number of months; it was given a float"),
        ("now().add(9223372036854775807, \"years\")", "`add`: dates go from the year -9999 to 9999"),
        ("now().add(9223372036854775807, \"weeks\")", "`add`: dates go from the year -9999 to 9999"),
        ("now().add(\"a\", \"days\")", "`add` takes a number of days; it was given a string"),
        ("now().format(\"YYYY\")", "`format` takes a form such as \"%Y-%m-%d %H:%M\"; it was given \"YYYY\""),
        (
            "now().start_of(\"era\")",
            "`start_of` knows \"hour\", \"day\", \"week\", \"month\" and \"year\", and no \"era\"",
        ),
        (
            "now() < \"x\"",
            "`<` can't read the date \"x\": write as in \"2026-01-31\", \"2026-01-31 10:00:00\" or \"2026-01-31T10:00:00+02:00\", or use parse_date(text, \"%d/%m/%Y\")",
        ),
        ("now().to_offset(99)", "`to_offset` takes the hours from UTC, from -25 to 25, such as 5.5"),
    ]);
}

#[test]
fn values_are_encoded() {
    check_all(&[
        (
            "[base64_encode(\"héy\"), base64_decode(\"aMOpeQ==\"), base64_decode(\"aMOp eQ\"), base64_decode(\"_-8=\").len(), btoa(\"a\"), atob(\"YQ\"), base64_encode(blob(1, 255))]",
            r#"["aMOpeQ==","héy","héy",2,"YQ==","a","/w=="]"#,
        ),
        (
            "[hex_encode(\"AZ\"), hex_decode(\"415A\"), hex_decode(\"ff\").len(), hex_encode(blob(1, 10))]",
            r#"["415a","AZ",1,"0a"]"#,
        ),
        ("sha256(\"abc\")", r#""ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad""#),
        (
            "[url_encode(\"a b/é?~\"), url_decode(\"a%20b%2F%C3%A9\"), encodeURIComponent(\"&\"), decodeURIComponent(\"%26\")]",
            r#"["a%20b%2F%C3%A9%3F~","a b/é","%26","&"]"#,
        ),
        (
            "parse_url(\"https://Me:pw@Example.org:8080/a%20b/c?x=1&y=a+b&x=2&z#top\")",
            r#"{"fragment":"top","host":"example.org","path":"/a b/c","port":8080,"query":{"x":["1","2"],"y":"a b","z":""},"scheme":"https","username":"Me"}"#,
        ),
        (
            "[parse_url(\"http://[::1]:80/\").host, parse_url(\"http://[::1]\").host, parse_url(\"mailto:a@b.c\")]",
            r#"["[::1]","[::1]",{"fragment":null,"host":null,"path":"a@b.c","port":null,"query":{},"scheme":"mailto","username":null}]"#,
        ),
        ("build_query(#{a: 1, b: [\"x y\", 2], c: (), d: \"é&\"})", r#""a=1&b=x%20y&b=2&d=%C3%A9%26""#),
        (
            "[parse_json(\"[1]\"), #{a: 1}.to_json(), [1, \"a\"].to_json(), to_json(1.5), to_json(()), to_json(date(0))]",
            r#"[[1],"{\"a\":1}","[1,\"a\"]","1.5","null","\"1970-01-01T00:00:00Z\""]"#,
        ),
        (
            "[to_json(#{a: [1]}, 2), to_json([], 2), to_json([1], 0), to_json([1], 99).len(), to_json([1], -5)]",
            r#"["{\n  \"a\": [\n    1\n  ]\n}","[]","[1]",15,"[1]"]"#,
        ),
    ]);
    check_errors(&[
        ("base64_decode(\"*\")", "`base64_decode` takes base64; it was given \"*\""),
        ("base64_encode(1)", "`base64_encode` takes a string or a blob; it was given an integer"),
        ("hex_decode(\"abc\")", "`hex_decode` takes pairs of hexadecimal digits; it was given \"abc\""),
        ("url_decode(\"%ff\")", "`url_decode`: \"%ff\" holds bytes that are no text"),
        (
            "parse_url(\"example.org/a\")",
            "`parse_url` takes a whole URL, such as \"https://a.org/b\"; it was given \"example.org/a\"",
        ),
        ("parse_url(\"http://a:99999/\")", "`parse_url`: \"99999\" is no port"),
        ("build_query(#{a: #{}})", "`build_query` takes plain values and arrays of them; `a` has a map"),
        ("to_json([|x| x])", "<function> has no form in JSON"),
    ]);
}

#[test]
fn objects_of_javascript() {
    check_all(&[
        (
            "[JSON.parse(\"{\\\"a\\\": 1}\").a, JSON.stringify([1]), JSON.stringify([1], ()), JSON.stringify([1], (), 1)]",
            r#"[1,"[1]","[1]","[\n 1\n]"]"#,
        ),
        (
            "[Math.max(1, 2.5), Math.min(3, 1, 2), Math.max([1, 9]), Math.round(2.5), Math.round(-2.5), Math.floor(-1.5), Math.ceil(1.2), Math.trunc(1.9), Math.abs(-2), Math.abs(-2.5), Math.sign(-3), Math.pow(2, 3)]",
            "[2.5,1,9,3,-2,-2,2,1,2,2.5,-1,8]",
        ),
        (
            "[Math.sqrt(4), Math.cbrt(8), Math.log(1), Math.log2(8), Math.log10(100), Math.exp(0), Math.sin(0), Math.cos(0), Math.tan(0), Math.atan(0), Math.random() < 1.0, Math.PI > 3.0, Math.E > 2.0]",
            "[2.0,2.0,0.0,3.0,2.0,1.0,0.0,1.0,0.0,0.0,true,true,true]",
        ),
        (
            "[Object.keys(#{a: 1}), Object.values(#{a: 1}), Object.entries(#{a: 1}), Object.assign(#{a: 1}, #{b: 2}), Object.fromEntries([[\"a\", 1]])]",
            r#"[["a"],[1],[["a",1]],{"a":1,"b":2},{"a":1}]"#,
        ),
        (
            "[Array.isArray([]), Array.isArray(1), Array.from(\"ab\"), Array.from([1]), Number.isInteger(1.0), Number.isInteger(\"a\"), Number.isInteger(2)]",
            r#"[true,false,["a","b"],[1],true,false,true]"#,
        ),
        ("[Date.now(), Date.parse(\"1970-01-01T00:00:01Z\")]", "[1795348800000,1000]"),
        ("fn f() { Math.max(1, 2) } f()", "2"),
        ("let Math = #{a: 1}; Math.a", "1"),
        ("[JSON, Math, console].map(|x| `${x}`)", r#"["JSON","Math","console"]"#),
        ("Math.floor(1e300)", "1e+300"),
    ]);
    check_errors(&[
        ("Math.sqrt(\"a\")", "`Math.sqrt` takes a number; it was given a string"),
        ("JSON.stringify(|x| x)", "<function> has no form in JSON"),
    ]);
}

/// Calls everything that could be the name of a function of the library, with whatever a hostile script may give.
#[test]
fn nothing_panics_whatever_it_is_given() {
    const VALUES: &str = "let long = \"ab é{0:>5}\".repeat(20); let deep = []; for i in 0..150 { deep = [deep]; }
        let all = [0, -1, 3, -9223372036854775808, 9223372036854775807, 0.5, 0.0 / 0.0, 1.0 / 0.0, -1e308, \"\", \"é\", \"day\",
            \"%\", \"%255Y%-d%:z%.99f%9999999999N\", \"(?<a>.)|\", \"{:.9999999}\", long, 'ß', true, (), [], [3, \"a\", ()], [[1, 2], [\"k\", deep]], deep,
            #{}, #{day: -9223372036854775808, a: deep}, blob(3, 200), |x| x, |a, b| a == b, |a, b, c| c, || throw 1, Fn(\"len\"), now(),
            github, JSON, Math, Object, Array, Number, Date, console, 0..3];
        let few = [-9223372036854775808, 9223372036854775807, 0.0 / 0.0, \"\", long, (), [3, \"a\", ()], deep, #{a: 1}, |x| x, now(), Math];
        let done = 0;";
    let sources = [
        include_str!("dates.rs"),
        include_str!("encoding.rs"),
        include_str!("javascript.rs"),
        include_str!("lists.rs"),
        include_str!("maps.rs"),
        include_str!("numbers.rs"),
        include_str!("patterns.rs"),
        include_str!("text.rs"),
        include_str!("values.rs"),
    ];
    let is_name = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && *word != "null"
    };
    let names: std::collections::BTreeSet<&str> =
        sources.iter().flat_map(|source| source.split('"')).filter(is_name).collect();
    let (mut called, mut refused) = (0, Vec::new());
    for name in names {
        // These two are reserved.
        let property = if matches!(name, "print" | "debug") { "length" } else { name };
        let answer = outcome(&format!(
            "{VALUES}
            try {{ {name}(); done += 1 }} catch {{}}
            for a in all {{ try {{ {name}(a); done += 1 }} catch {{}} try {{ a.{property}; done += 1 }} catch {{}} }}
            for a in all {{ for b in all {{ try {{ {name}(a, b); done += 1 }} catch {{}} }} }}
            for a in few {{ for b in few {{ for c in few {{ try {{ {name}(a, b, c); done += 1 }} catch {{}} }} }} }}
            for a in few {{ for b in few {{ try {{ {name}(a, a, b, b); done += 1 }} catch {{}} }} }}
            done"
        ))
        .0;
        match answer.parse::<u32>() {
            Ok(done) => called += u32::from(done > 0),
            Err(_) => refused.push(format!("{name}: {answer}")),
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(called > 250, "{called} functions took anything at all");
}

/// Run with `--ignored --nocapture` to see how long the helpers take over 10,000 rows.
#[test]
#[ignore = "prints figures"]
#[allow(clippy::print_stderr, reason = "it prints figures")]
fn figures() {
    let rows = "let rows = []; for i in 0..10000 { rows.push(#{id: i, name: `name ${i}`, key: `group ${i % 50}`, amount: i % 997,
        open: i % 3 == 0, text: \"some text that makes a row as long as rows are\"}); }";
    let time = |script: &str| {
        let runs = (0..10).map(|_| {
            let start = std::time::Instant::now();
            let answer = outcome(&format!("{rows} {script}")).0;
            assert!(!answer.starts_with("runtime"), "{answer}");
            start.elapsed()
        });
        runs.min().unwrap_or_default()
    };
    let start = std::time::Instant::now();
    crate::init();
    eprintln!("\n{:>8.2?} to build the engine", start.elapsed());
    let base = time("0");
    for script in [
        "rows.filter(\"open\").group_by(\"key\").len() + rows.sum(\"amount\")",
        "rows.filter(|r| r.open).len()",
        "rows.map(|r| r.amount).len()",
        "rows.group_by(\"key\").len()",
        "rows.sum(\"amount\")",
        "rows.sort_by(\"name\").len()",
        "rows.sort_by(|r| [r.key, -r.amount]).len()",
        "rows.unique().len()",
        "rows.map(\"name\").join(\" \").regex_find_all(\"\\\\d+5\").len()",
        "rows.to_json().len()",
    ] {
        // Twenty times, for making the rows takes longer than most of these.
        let twenty = time(&format!("for i in 0..20 {{ {script}; }}"));
        eprintln!("{:>8.2?} {script}", twenty.saturating_sub(base) / 20);
    }
}
