//! The users and issues every tracker starts with.

use crate::model::Priority::{self, High, Low, Normal, Urgent};
use crate::model::{Comment, Issue, IssueSummary, State, User};

/// There is no clock, so everything made while the server runs carries this moment, after all the seeded ones.
pub(crate) const NOW: &str = "2026-03-20T09:00:00Z";

pub(crate) const USERS: [User; 5] = [
    User { login: "ines", name: "Inês Duarte", team: "maps" },
    User { login: "kofi", name: "Kofi Mensah", team: "support" },
    User { login: "mei", name: "Mei Tanaka", team: "design" },
    User { login: "priya", name: "Priya Raman", team: "mobile" },
    User { login: "tomasz", name: "Tomasz Wójcik", team: "sync" },
];

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(crate) fn issues() -> Vec<Issue> {
    let (ines, kofi, mei, priya, tomasz) = (Some("ines"), Some("kofi"), Some("mei"), Some("priya"), Some("tomasz"));
    vec![
        issue(
            1,
            "2026-01-05T08:12:00Z",
            ("Map stays blank after the phone wakes in airplane mode", Urgent, ines, &["bug", "maps", "android"]),
            "The region is downloaded and worked ten minutes before. Waking the phone without a network shows grey \
             squares until the app is restarted. Three walkers reported this from the same ridge.",
        )
        .comment("kofi", "2026-01-05T10:40:00Z", "A fourth report, this time from a canoe.")
        .comment("ines", "2026-01-06T09:05:00Z", "We ask the server whether the tiles are fresh before drawing them."),
        issue(
            2,
            "2026-01-06T14:30:00Z",
            ("Show elevation gain next to distance in the route list", Normal, mei, &["feature", "routing"]),
            "Twelve flat kilometres and twelve steep ones look the same in the list.",
        )
        .closed("shipped in 2.4"),
        issue(
            3,
            "2026-01-07T11:02:00Z",
            ("Photos attached to a waypoint are uploaded twice", High, tomasz, &["bug", "sync"]),
            "Once from the gallery and once from the waypoint. Accounts run out of space in half the time.",
        )
        .comment("tomasz", "2026-01-09T16:20:00Z", "Uploads are now named after their content, so the second is free.")
        .closed("fixed in 2.4"),
        issue(
            4,
            "2026-01-09T17:45:00Z",
            ("Screen reader announces every contour line", High, mei, &["bug", "accessibility", "ios"]),
            "Moving a finger over the map reads out \"line, line, line\". It should name paths, peaks and huts only.",
        ),
        issue(
            5,
            "2026-01-12T07:20:00Z",
            ("Battery drains overnight while a track is paused", High, priya, &["bug", "performance", "android"]),
            "Pausing a recording keeps the location sensor running. The phone loses about 40% of its battery by morning.",
        )
        .comment("priya", "2026-01-12T13:00:00Z", "Reproduced: 38% on my own phone, which was not planned.")
        .comment("kofi", "2026-01-20T08:15:00Z", "See also #19."),
        issue(
            6,
            "2026-01-13T09:50:00Z",
            ("Explain what the coloured trail markings mean", Low, None, &["docs", "good-first-issue"]),
            "Red and white stripes mean something else in every country. A short page per country would do.",
        ),
        issue(
            7,
            "2026-01-15T19:08:00Z",
            ("Import GPX files that hold more than one track", Normal, ines, &["feature", "routing"]),
            "Only the first track is imported, without a word about the others.",
        )
        .comment("mei", "2026-01-16T10:11:00Z", "Let us ask which ones to keep, with all of them ticked."),
        issue(
            8,
            "2026-01-16T22:31:00Z",
            ("Links to shared routes can be guessed", Urgent, tomasz, &["security", "sync"]),
            "They end in a number that counts up. Adding one shows somebody else's walk, often starting at their home.",
        )
        .comment("tomasz", "2026-01-17T06:55:00Z", "New links are random; the old ones stop working on Monday.")
        .closed("fixed in 2.4.1"),
        issue(
            9,
            "2026-01-19T12:00:00Z",
            ("Dark mode hides the north arrow", Low, mei, &["bug", "good-first-issue"]),
            "Black arrow, black map.",
        )
        .closed("fixed in 2.4.1"),
        issue(
            10,
            "2026-01-22T15:37:00Z",
            ("Sync stops at the first file name with an emoji", High, tomasz, &["bug", "sync"]),
            "A route called \"Sunrise 🌄\" is never uploaded, and neither is anything after it in the alphabet.",
        ),
        issue(
            11,
            "2026-01-26T18:22:00Z",
            ("Use miles and feet everywhere, not just on the map", Normal, priya, &["feature"]),
            "With imperial units chosen, spoken directions and exports still use metres.",
        ),
        issue(
            12,
            "2026-01-28T10:03:00Z",
            ("Search finds Lake Bled but not Blejsko jezero", Normal, ines, &["feature", "maps"]),
            "Places should be found under their local names too; they are what the signposts say.",
        )
        .comment("kofi", "2026-01-28T11:30:00Z", "People write in about this from Wales every week."),
        issue(
            13,
            "2026-01-30T08:44:00Z",
            ("Crash when the phone is turned during a download", High, priya, &["bug", "android"]),
            "Start downloading a region, turn the phone sideways: the app closes and the download starts over.",
        )
        .closed("fixed in 2.5"),
        issue(
            14,
            "2026-02-02T13:15:00Z",
            ("Download size of a region is off by a factor of ten", Normal, None, &["bug", "maps"]),
            "The Dolomites are announced as 120 MB and turn out to be 1.2 GB, usually on a hut's slow network.",
        ),
        issue(
            15,
            "2026-02-04T20:09:00Z",
            ("Route planner relies on ferries that do not run", High, ines, &["bug", "routing"]),
            "A walk planned for November crosses the lake by a ferry that stops in September.",
        )
        .comment("ines", "2026-02-05T09:30:00Z", "The timetable is in the map data. We only read the word \"ferry\"."),
        issue(
            16,
            "2026-02-09T09:00:00Z",
            ("Write a guide to moving from paper maps", Low, kofi, &["docs"]),
            "The most common question from new users is where to put the pencil notes.",
        )
        .closed("published in the help pages"),
        issue(
            17,
            "2026-02-11T16:48:00Z",
            ("Two phones editing one route lose an edit", Urgent, tomasz, &["bug", "sync"]),
            "The phone that syncs last wins and the other edit is gone without a trace. Happens to couples a lot.",
        )
        .comment("mei", "2026-02-12T10:25:00Z", "Keeping both versions side by side would be enough for now.")
        .comment("tomasz", "2026-02-12T11:02:00Z", "Agreed. Merging can come later."),
        issue(
            18,
            "2026-02-16T07:33:00Z",
            ("Make buttons large enough for gloves", Normal, mei, &["feature", "accessibility"]),
            "Starting a recording at minus ten takes several tries and a bare hand.",
        ),
        issue(
            19,
            "2026-02-17T08:10:00Z",
            ("Phone is warm in the morning", Normal, kofi, &["bug", "android"]),
            "It lay on the table all night with the app open and a paused recording.",
        )
        .closed("duplicate of #5"),
        issue(
            20,
            "2026-02-20T17:55:00Z",
            ("Warn when a route will not be finished before sunset", Normal, None, &["feature", "routing"]),
            "We know the pace, the distance and the date. A line under the arrival time would be plenty.",
        ),
        issue(
            21,
            "2026-02-25T12:41:00Z",
            ("Account export leaves out comments", Normal, tomasz, &["bug", "sync"]),
            "Routes and photos are in the archive; comments written on other people's routes are missing.",
        ),
        issue(
            22,
            "2026-03-02T14:26:00Z",
            ("Old map tiles are never deleted", Normal, ines, &["bug", "performance", "maps"]),
            "Every update of a region keeps the previous one. One tester carries seven versions of Snowdonia.",
        )
        .closed("fixed in 2.5"),
        issue(
            23,
            "2026-03-09T10:18:00Z",
            ("Opening the app takes nine seconds with 4,000 tracks", High, priya, &["performance", "ios"]),
            "All tracks are read before the map is drawn. Nobody looks at more than a handful of them.",
        ),
        issue(
            24,
            "2026-03-18T21:04:00Z",
            ("Sign-in tokens end up in the debug log", Urgent, None, &["security", "android"]),
            "The log is attached to bug reports, so support can read the token of whoever asks for help.",
        )
        .comment("kofi", "2026-03-19T07:50:00Z", "I have stopped forwarding logs until this is fixed."),
    ]
}

type Headline<'a> = (&'a str, Priority, Option<&'a str>, &'a [&'a str]);

fn issue(number: usize, created_at: &str, (title, priority, assignee, labels): Headline, body: &str) -> Issue {
    let summary = IssueSummary {
        number,
        title: title.into(),
        state: State::Open,
        labels: labels.iter().map(ToString::to_string).collect(),
        assignee: assignee.map(Into::into),
        priority,
    };
    Issue { summary, body: body.into(), created_at: created_at.into(), close_reason: None, comments: Vec::new() }
}

impl Issue {
    fn comment(mut self, author: &str, created_at: &str, body: &str) -> Self {
        self.comments.push(Comment { author: author.into(), body: body.into(), created_at: created_at.into() });
        self
    }

    fn closed(mut self, reason: &str) -> Self {
        self.summary.state = State::Closed;
        self.close_reason = Some(reason.into());
        self
    }
}
