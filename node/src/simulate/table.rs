//! The live table on a terminal: how far the run and its window are, how the last window went, and a line a peer.

mod rows;

use std::io::Write;

use anyhow::{Context, Result};
use indicatif::HumanBytes;

use super::watch::Moment;
use super::{Simulation, WindowResult};
use crate::chain::UNITS;
use rows::Rows;

/// Cells of a bar.
const BAR: usize = 30;

/// Columns from which all of a peer's numbers are shown: on a narrower terminal they would leave no room for the reason.
const WIDE: usize = 110;

/// Rows and columns where the terminal does not say.
const SIZE: (usize, usize) = (24, 80);

/// What the table shows.
#[derive(Clone, Debug, Default)]
struct View {
    /// Windows of the run, and those that ended.
    windows: u64,
    ended: u64,
    moment: Moment,
    /// The last window that ended.
    result: WindowResult,
    rows: Vec<Row>,
}

/// A peer.
#[derive(Clone, Debug, Default)]
struct Row {
    name: String,
    status: &'static str,
    /// μ_p.
    proof: f64,
    loss_rating: f64,
    /// Of the split of the last window.
    share: f64,
    /// Earned so far, in smallest units.
    balance: u64,
    why: String,
}

/// A table that is drawn over itself.
pub(crate) struct Table {
    view: View,
    rows: Rows,
    /// Lines as they stand on the terminal.
    drawn: Vec<String>,
}

impl Table {
    pub(crate) fn new(windows: u64) -> Self {
        Self { view: View { windows, ..View::default() }, rows: Rows::default(), drawn: Vec::new() }
    }

    /// Draws the state after a window.
    pub(crate) fn window(&mut self, simulation: &Simulation, result: &WindowResult) -> Result<()> {
        self.view.rows = self.rows.of(simulation, result)?;
        (self.view.ended, self.view.result) = (result.window + 1, result.clone());
        self.view.moment = Moment::default();
        self.draw()
    }

    /// Draws how far the window is.
    pub(crate) fn moment(&mut self, moment: Moment) -> Result<()> {
        self.view.moment = moment;
        self.draw()
    }

    fn draw(&mut self) -> Result<()> {
        let size = console::Term::stdout().size_checked().filter(|(height, width)| *height > 0 && *width > 0);
        let (height, width) = size.map_or(SIZE, |(height, width)| (height.into(), width.into()));
        let mut out = std::io::stdout().lock();
        self.redraw(&mut out, width, height)
            .and_then(|()| out.flush())
            .context("cannot write to standard output")
    }

    /// Writes the table over the one before.
    fn redraw(&mut self, out: &mut impl Write, width: usize, height: usize) -> std::io::Result<()> {
        // Up to where it began: on a terminal that has become narrower its lines take several rows. Further than to the
        // top nothing can go.
        let rows = |line: &String| console::measure_text_width(line).div_ceil(width.max(1)).max(1);
        let up = self.drawn.iter().map(rows).sum::<usize>().min(height.saturating_sub(1));
        self.drawn = render(&self.view, width, height);
        if up > 0 {
            write!(out, "\x1b[{up}A\r\x1b[J")?;
        }
        let text: String = self.drawn.iter().map(|line| format!("{line}\n")).collect();
        out.write_all(text.as_bytes())
    }
}

/// The lines of the table on a terminal of `width` columns and `height` rows: none is longer, and one row is left for the
/// cursor. Of too many peers the best and the worst paid are shown.
fn render(view: &View, width: usize, height: usize) -> Vec<String> {
    let mut lines = vec![run_line(view), window_line(view), result_line(&view.result)];
    let mut rows: Vec<&Row> = view.rows.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.balance));
    let names = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(4);
    let wide = width >= WIDE;
    let shown = |row: &Row| if wide { wide_line(row, names) } else { narrow_line(row, names) };
    if !rows.is_empty() {
        let ratings = if wide { format!("{:>7} {:>10} ", "μ", "LossRating") } else { String::new() };
        let (peer, status, share, balance) = ("peer", "status", "share", "balance");
        lines.push(format!("{peer:names$}  {status:<8} {ratings}{share:>7} {balance:>12}  why"));
    }
    let room = height.saturating_sub(1).saturating_sub(lines.len());
    let (top, hidden) = fitting(rows.len(), room);
    lines.extend(rows.iter().take(top).map(|row| shown(row)));
    if hidden > 0 && room > 0 {
        lines.push(format!("… {hidden} more"));
        lines.extend(rows.iter().skip(top + hidden).map(|row| shown(row)));
    }
    lines.truncate(height.saturating_sub(1));
    lines.iter().map(|line| console::truncate_str(line, width, "…").into_owned()).collect()
}

/// Rows shown at the top of `room` lines, and those left out after them.
fn fitting(rows: usize, room: usize) -> (usize, usize) {
    if rows <= room {
        return (rows, 0);
    }
    let shown = room.saturating_sub(1);
    (shown.div_ceil(2), rows - shown)
}

fn run_line(view: &View) -> String {
    #[allow(clippy::cast_precision_loss)] // a part of a bar
    let part = view.ended as f64 / view.windows.max(1) as f64;
    format!("run    {} {} of {} windows", bar(part), view.ended, view.windows)
}

fn window_line(view: &View) -> String {
    let moment = &view.moment;
    if moment.of == 0 {
        let last = view.ended.checked_sub(1);
        return last.map_or(String::from("window"), |window| format!("window {} {window}: ended", bar(1.0)));
    }
    #[allow(clippy::cast_precision_loss)] // a part of a bar
    let part = moment.done as f64 / moment.of as f64;
    let Moment { window, phase, done, of } = moment;
    format!("window {} {window}: {phase}, {done} of {of}", bar(part))
}

fn bar(part: f64) -> String {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // 0 to BAR
    let filled = ((part.clamp(0.0, 1.0) * BAR as f64) as usize).min(BAR);
    format!("[{}{}]", "#".repeat(filled), "-".repeat(BAR - filled))
}

fn result_line(result: &WindowResult) -> String {
    let shown = |loss: Option<f64>| loss.map_or("-".to_owned(), |loss| format!("{loss:.4}"));
    format!(
        "loss {}  held out {}  baseline {}  {} accepted, {}",
        shown(result.train_loss),
        shown(result.validation),
        shown(result.baseline),
        result.accepted,
        HumanBytes(result.bytes)
    )
}

fn wide_line(row: &Row, names: usize) -> String {
    let (balance, Row { name, status, proof, loss_rating, share, why, .. }) = (tokens(row), row);
    format!("{name:names$}  {status:<8} {proof:>7.3} {loss_rating:>10.3} {share:>7.4} {balance:>12.4}  {why}")
}

/// Without ratings, and without the words before the reason of a failed check.
fn narrow_line(row: &Row, names: usize) -> String {
    let (balance, Row { name, status, share, why, .. }) = (tokens(row), row);
    let failed = why.strip_prefix("its submission of window ").and_then(|rest| rest.split_once(" failed: "));
    let why = failed.map_or(why.as_str(), |(_, reason)| reason);
    format!("{name:names$}  {status:<8} {share:>7.4} {balance:>12.4}  {why}")
}

#[allow(clippy::cast_precision_loss)] // shown with four digits
fn tokens(row: &Row) -> f64 {
    row.balance as f64 / UNITS as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(peers: u64) -> View {
        let row = |i: u64| Row {
            name: format!("honest-{i}"),
            status: "accepted",
            proof: 0.25,
            balance: (i * 7 % peers) * UNITS,
            why: "its submission of window 12 failed: its commitment came too late".into(),
            ..Row::default()
        };
        let moment = Moment { window: 3, phase: "training", done: 1, of: 2 };
        View { windows: 6, ended: 3, moment, rows: (0..peers).map(row).collect(), ..View::default() }
    }

    fn widest(lines: &[String]) -> usize {
        lines.iter().map(|line| console::measure_text_width(line)).max().unwrap_or(0)
    }

    #[test]
    fn all_peers_are_shown_by_what_they_earned_where_they_fit() {
        let lines = render(&view(5), 200, 24);
        assert_eq!(lines.len(), 4 + 5);
        assert_eq!(lines[0], format!("run    [{}{}] 3 of 6 windows", "#".repeat(15), "-".repeat(15)));
        assert_eq!(lines[1], format!("window [{}{}] 3: training, 1 of 2", "#".repeat(15), "-".repeat(15)));
        assert!(lines[3].starts_with("peer") && lines[3].contains("status") && lines[3].ends_with("why"));
        let names: Vec<&str> = lines[4..].iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(names, ["honest-2", "honest-4", "honest-1", "honest-3", "honest-0"]);
        assert_eq!(
            lines[4],
            "honest-2  accepted   0.250      0.000  0.0000       4.0000  \
             its submission of window 12 failed: its commitment came too late"
        );
    }

    #[test]
    fn a_narrow_terminal_shows_the_reason() {
        let lines = render(&view(5), 80, 24);
        assert!(
            lines[3].starts_with("peer") && lines[3].ends_with("why") && !lines[3].contains("LossRating")
        );
        assert_eq!(lines[4], "honest-2  accepted  0.0000       4.0000  its commitment came too late");
    }

    #[test]
    fn of_too_many_peers_the_best_and_the_worst_paid_are_shown() {
        let lines = render(&view(254), 120, 24);
        assert_eq!(lines.len(), 23, "the cursor has a row of its own");
        assert!(widest(&lines) <= 120);
        let more = lines.iter().position(|line| line.starts_with('…')).unwrap();
        assert_eq!((more, lines[more].as_str()), (13, "… 236 more"));
        let balance = |line: &String| line.split_whitespace().nth(5).unwrap().parse::<f64>().unwrap();
        assert_eq!(balance(&lines[4]), 253.0);
        assert_eq!(balance(&lines[22]), 0.0);
        let balances: Vec<f64> = lines[4..].iter().filter(|l| !l.starts_with('…')).map(balance).collect();
        assert_eq!(balances.len(), 18);
        assert!(balances.is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn no_terminal_is_too_small() {
        for height in 0..12 {
            for width in 1..100 {
                let lines = render(&view(9), width, height);
                assert!(lines.len() <= height.saturating_sub(1), "{width} × {height}");
                assert!(widest(&lines) <= width, "{width} × {height}: {lines:?}");
            }
        }
        assert_eq!(render(&View::default(), 80, 24).len(), 3, "before the first window ends");
    }

    #[test]
    fn the_bar_moves_within_a_window() {
        let line_of = |moment| window_line(&View { moment, ..view(3) });
        let at = |done| {
            let line = line_of(Moment { window: 3, phase: "training", done, of: 30 });
            line.matches('#').count()
        };
        assert_eq!([at(0), at(1), at(15), at(30)], [0, 1, 15, 30]);
        let over = line_of(Moment { done: 9, of: 3, ..Moment::default() });
        assert_eq!(over.matches('#').count(), BAR);
        assert_eq!(line_of(Moment::default()), format!("window [{}] 2: ended", "#".repeat(BAR)));
    }

    #[test]
    fn it_is_drawn_over_itself() {
        let mut table = Table { view: view(3), rows: Rows::default(), drawn: Vec::new() };
        let mut drawn = |width, height| {
            let mut out = Vec::new();
            table.redraw(&mut out, width, height).unwrap();
            String::from_utf8(out).unwrap()
        };
        let first = drawn(200, 24);
        assert!(!first.contains('\x1b') && first.lines().count() == 7, "{first}");
        assert_eq!(drawn(200, 24), format!("\x1b[7A\r\x1b[J{first}"));
        // Narrower: as it was drawn, each row of a peer, and its head, has been wrapped.
        let wrapped: usize = first.lines().map(|line| line.chars().count().div_ceil(60)).sum();
        assert!(wrapped > 9);
        assert!(drawn(60, 24).starts_with(&format!("\x1b[{wrapped}A\r")));
        // Lower: the top of it is out of reach.
        assert!(drawn(60, 5).starts_with("\x1b[4A\r"));
    }
}
