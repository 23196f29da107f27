//! Tests of the player: a person with keys and a clock of their own.

use super::*;
use proptest::collection::vec;

/// A player with its file, its clock and everything it wrote.
struct Scene {
    player: Player,
    now: Duration,
    out: Vec<u8>,
    _folder: TempDir,
}

const NORMAL: Settings = Settings { speed: 1.0, idle_limit: None, from_ms: 0 };

impl Scene {
    fn new(events: &[(u64, char, &str)], settings: Settings) -> Self {
        let (folder, path) = file(&cast(events));
        let timeline = Timeline::open(&path).unwrap();
        let player = Player::new(timeline, (80, 24), settings, Duration::ZERO).unwrap();
        Self { player, now: Duration::ZERO, out: Vec::new(), _folder: folder }
    }

    /// Lets time pass; tells what the player wants next.
    fn after(&mut self, pause: u64) -> Wait {
        self.now += ms(pause);
        self.player.tick(self.now, &mut self.out).unwrap()
    }

    fn press(&mut self, key: Key) {
        self.player.press(key, self.now, &mut self.out).unwrap();
    }

    fn written(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.out)).unwrap()
    }

    /// The first line of the screen that all the output makes.
    fn seen(&self) -> String {
        let mut terminal = avt::Terminal::new(80, 24).unwrap();
        terminal.feed(String::from_utf8_lossy(&self.out).as_ref());
        terminal.screen().text().join("\n").trim_end().to_owned()
    }
}

#[test]
fn output_comes_when_it_came() {
    let mut scene = Scene::new(THREE, NORMAL);
    assert_eq!(scene.after(0), Wait::For(ms(100)));
    assert_eq!(scene.after(100), Wait::For(ms(2000)));
    assert_eq!(scene.written(), "one\r\n");
    assert_eq!(scene.after(1999), Wait::For(ms(1)));
    assert_eq!(scene.written(), "");
    assert_eq!(scene.after(101), Wait::Ended);
    assert_eq!(scene.written(), "two\r\n");
}

#[test]
fn being_late_once_delays_nothing_after() {
    let mut scene = Scene::new(THREE, NORMAL);
    assert_eq!(scene.after(150), Wait::For(ms(1950)));
}

#[test]
fn speed_and_idle_limit_shorten_pauses() {
    let mut scene = Scene::new(THREE, Settings { speed: 2.0, idle_limit: Some(ms(500)), from_ms: 0 });
    assert_eq!(scene.after(0), Wait::For(ms(50)));
    assert_eq!(scene.after(50), Wait::For(ms(250)));
    scene.press(Key::Faster);
    assert_eq!(scene.after(0), Wait::For(ms(125)));
    scene.press(Key::Slower);
    scene.press(Key::Slower);
    assert_eq!(scene.after(100), Wait::For(ms(400)));
    assert_eq!(scene.player.status(Some(3_723_000)), "0:00 of 1:02:03");
}

#[test]
fn a_pause_stops_time_and_a_step_shows_one_output() {
    let mut scene = Scene::new(THREE, NORMAL);
    scene.after(60);
    scene.press(Key::Pause);
    assert_eq!(scene.after(10_000), Wait::Key);
    assert_eq!(scene.written(), "");
    scene.press(Key::Step);
    assert_eq!(scene.written(), "one\r\n");
    assert_eq!(scene.player.status(None), "0:00, paused");
    scene.press(Key::Pause);
    assert_eq!(scene.after(0), Wait::For(ms(2000)));
    scene.press(Key::Step);
    assert_eq!(scene.written(), "", "a step only steps while paused");
}

#[test]
fn going_back_shows_the_screen_as_it_was() {
    let events = [
        (1000, 'o', "\u{1b}[31mone\r\n"),
        (7000, 'o', "two\r\n\u{1b}[?1049h\u{1b}[Hfull screen"),
        (8000, 'o', "\u{1b}[?1049lthree"),
        (20_000, 'o', "four"),
    ];
    let mut scene = Scene::new(&events, NORMAL);
    scene.after(9000);
    scene.press(Key::Back);
    assert_eq!((scene.player.position_ms(), scene.seen().as_str()), (4000, "one"));
    scene.press(Key::Forward);
    assert_eq!((scene.player.position_ms(), scene.seen().as_str()), (9000, "one\ntwo\nthree"));
    assert_eq!(scene.after(0), Wait::For(ms(11_000)));
    for _ in 0..3 {
        scene.press(Key::Back);
    }
    assert_eq!((scene.player.position_ms(), scene.seen().as_str()), (0, ""));
    scene.press(Key::Forward);
    scene.player.seek(7500, &mut scene.out).unwrap();
    assert_eq!(scene.seen(), "full screen");
    scene.player.seek(60_000, &mut scene.out).unwrap();
    assert_eq!(scene.seen(), "one\ntwo\nthreefour");
    assert_eq!(scene.after(0), Wait::Ended);
}

#[test]
fn markers_are_found_before_and_after() {
    let events =
        [(1000, 'm', "a"), (1500, 'o', "A"), (5000, 'm', "b"), (5500, 'o', "B"), (90_000, 'o', "end")];
    let mut scene = Scene::new(&events, NORMAL);
    scene.after(0);
    scene.press(Key::NextMarker);
    assert_eq!(scene.player.position_ms(), 1000);
    scene.press(Key::NextMarker);
    assert_eq!((scene.player.position_ms(), scene.seen().as_str()), (5000, "A"));
    scene.press(Key::NextMarker);
    assert_eq!(scene.player.position_ms(), 5000, "there is none after it");
    scene.after(700);
    scene.press(Key::PreviousMarker);
    assert_eq!((scene.player.position_ms(), scene.seen().as_str()), (1000, ""));
    assert_eq!(scene.after(0), Wait::For(ms(500)));
}

#[test]
fn a_question_in_the_recording_is_not_asked_again() {
    let mut scene = Scene::new(&[(0, 'o', "a\u{1b}[6n"), (0, 'o', "\u{1b}]52;c;aGk=\u{7}b")], NORMAL);
    scene.after(0);
    assert_eq!(scene.written(), "ab");
}

#[test]
fn a_flood_is_shown_in_parts_so_that_keys_are_seen() {
    let chunk = "x".repeat(10_000);
    let events: Vec<(u64, char, &str)> = (0..100).map(|_| (0, 'o', chunk.as_str())).collect();
    let mut scene = Scene::new(&events, NORMAL);
    assert_eq!(scene.after(0), Wait::For(ms(0)));
    assert!(scene.written().len() < 300_000);
}

#[test]
fn seeking_far_uses_snapshots_and_is_exact() {
    let chunk = "y".repeat(1000);
    let lines: Vec<String> = (0..3000).map(|n| format!("{n} {chunk}\r\n")).collect();
    let events: Vec<(u64, char, &str)> =
        lines.iter().zip(0..).map(|(line, n)| (n * 1000, 'o', line.as_str())).collect();
    let mut scene = Scene::new(&events, NORMAL);
    scene.player.seek(2_999_000, &mut scene.out).unwrap();
    for second in [2500u64, 1234, 10, 2998, 0] {
        scene.out.clear();
        scene.player.seek(second * 1000, &mut scene.out).unwrap();
        assert!(scene.seen().contains(&format!("{second} yyy")), "second {second}");
        assert!(!scene.seen().contains(&format!("{} yyy", second + 1)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However one gets to a time, the screen is what playing up to it shows.
    #[test]
    fn every_way_to_a_time_shows_the_same(
        outputs in vec("[a-c \r\n]{0,8}|\x1b\\[[0-9]{1,2}m|\x1b\\[[1-9];[1-9]H|\x1b\\[\\?1049[hl]|\x1b\\[[JK]|\x1b\\[2;9r|é😀|\x1b[78]|\x1b\\[|5C", 1..40),
        targets in vec(0u64..42_000, 1..6),
    ) {
        let events: Vec<(u64, char, &str)> =
            outputs.iter().zip(1..).map(|(text, n)| (n * 1000, 'o', text.as_str())).collect();
        let mut scene = Scene::new(&events, NORMAL);
        for target in targets {
            scene.out.clear();
            scene.player.seek(target, &mut scene.out).unwrap();
            let mut played = Scene::new(&events, NORMAL);
            let _ = played.after(target);
            prop_assert_eq!(scene.seen(), played.seen());
        }
    }
}

/// An outline is for windows that its screens have room in.
#[test]
fn with_an_outline_every_moment_looks_as_it_does_without() {
    let lines: Vec<String> =
        (0..400u64).map(|n| format!("\u{1b}[3{}m{n} {}\r\n", n % 8, "x".repeat(4000))).collect();
    let events: Vec<(u64, char, &str)> =
        lines.iter().zip(0..).map(|(line, n): (_, u64)| (n * 100, 'o', line.as_str())).collect();
    let (_folder, path) = file(&cast(&events));
    let outline = {
        let mut timeline = Timeline::open(&path).unwrap();
        let mut transcript = crate::transcript::Transcript::of(timeline.header()).unwrap();
        let mut outliner = Outliner::begin(&timeline, &transcript);
        loop {
            let place = timeline.place();
            let Some(event) = timeline.next_event().unwrap() else { break };
            outliner.before(&event, place, &transcript);
            transcript.event(&event);
        }
        outliner.done(&mut timeline)
    };
    assert!(outline.scenes() > 3, "{}", outline.scenes());
    let packed = Outline::unpack(&outline.pack().unwrap());
    assert_eq!(packed.as_ref(), Some(&outline));
    for window in [(80, 24), (100, 50), (40, 12)] {
        let player = || Player::new(Timeline::open(&path).unwrap(), window, NORMAL, Duration::ZERO).unwrap();
        let (mut plain, mut knowing) = (player(), player());
        knowing.know_outline(outline.clone());
        for at in [39_900, 0, 20_050, 35_000, 12_300, 30_000] {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            plain.seek(at, &mut one).unwrap();
            knowing.seek(at, &mut other).unwrap();
            let shown = |bytes: &[u8]| {
                let mut terminal = avt::Terminal::new(usize::from(window.0), usize::from(window.1)).unwrap();
                terminal.feed(std::str::from_utf8(bytes).unwrap());
                terminal.dump()
            };
            assert_eq!(plain.position_ms(), knowing.position_ms(), "at {at}");
            // In a larger window what was cut at the recording's edge stays so.
            if window != (100, 50) {
                assert_eq!(shown(&one), shown(&other), "at {at} in {window:?}");
            }
        }
    }
}
