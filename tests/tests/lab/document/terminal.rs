//! `-it`: a person at a terminal, and a container's shell in it.

use super::*;
use shoal_tests::{Shape, Terminal, story};

const HOST: &str = "m1";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
/// ctrl-p ctrl-q
const LEAVE: &str = "\x10\x11";

/// 31 rows, 101 columns.
fn at_terminal(lab: &Lab, line: &[&str]) -> anyhow::Result<Terminal> {
    lab.at_terminal(HOST, line, 31, 101)
}

/// The program has ended so, and left the terminal as it was.
fn ended(terminal: Terminal, code: i32) -> anyhow::Result<String> {
    let (ended, shown) = terminal.end()?;
    ensure!(ended == Some(code), "exit code {code} was expected, not {ended:?}: {shown}");
    Ok(shown)
}

/// Its shell says so of its terminal, sooner or later.
fn has_size(terminal: &mut Terminal, size: &str) -> anyhow::Result<()> {
    let mut n = 0;
    eventually(&format!("its size is {size}"), SETTLES_WITHIN, || {
        n += 1;
        terminal.type_in(&format!("echo [$(stty size)]{n}\n"))?;
        // Not what is echoed of the line itself.
        terminal.until(&format!("]{n}\r\n"))?;
        ensure!(terminal.shown().contains(&format!("\n[{size}]{n}\r\n")), "{}", terminal.shown());
        Ok(())
    })
}

#[test]
fn a_shell_is_run_in_a_terminal_left_and_come_back_to() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        // The document's own line.
        let line = "run --name test-container -it --hostname=test-con.example.com --dns=8.8.8.8 page sh";
        let mut terminal = at_terminal(lab, &line.split(' ').collect::<Vec<_>>())?;
        terminal.until("# ")?;
        terminal.until_raw()?;
        terminal.ask("stty size", "\n31 101\r\n")?;
        terminal.ask("hostname", "\ntest-con.example.com\r\n")?;
        let address = v4(lab, HOST, "test-container", "bridge")?;
        terminal.ask("cat /etc/hosts", &format!("\n{address}\ttest-con.example.com test-con\r\n"))?;
        terminal.resize(40, 120)?;
        has_size(&mut terminal, "40 120")?;
        // To the program in the container, and to nobody else.
        terminal.ask("echo be''gun; sleep 1000", "\nbegun\r\n")?;
        terminal.type_in(CTRL_C)?;
        terminal.ask("echo is=$?", "\nis=130\r\n")?;
        terminal.type_in(LEAVE)?;
        ended(terminal, 0)?;
        ensure!(status(lab, HOST, "test-container")? == "running", "it goes on");

        let mut terminal = lab.at_terminal(HOST, ["attach", "test-container"], 20, 70)?;
        terminal.until_raw()?;
        has_size(&mut terminal, "20 70")?;
        terminal.ask("echo aga''in", "\nagain\r\n")?;
        // One of the keys alone is the container's.
        terminal.type_in("\x10\n")?;
        terminal.type_in("exit 7\n")?;
        ended(terminal, 7)?;

        let mut terminal = at_terminal(lab, &["start", "-ai", "--detach-keys", "ctrl-x,y", "test-container"])?;
        terminal.until("# ")?;
        terminal.ask("echo $((20+3))", "\n23\r\n")?;
        terminal.type_in("\x18y")?;
        ended(terminal, 0)?;
        ensure!(status(lab, HOST, "test-container")? == "running", "it goes on");
        let mut terminal = at_terminal(lab, &["attach", "test-container"])?;
        terminal.until_raw()?;
        terminal.type_in(CTRL_D)?;
        ended(terminal, 0)?;
        eventually("its input has ended", SETTLES_WITHIN, || {
            ensure!(status(lab, HOST, "test-container")? == "exited", "it runs");
            Ok(())
        })
    })
}

#[test]
fn a_program_is_added_in_a_terminal_and_goes_on_when_that_is_left() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        run(lab, HOST, "box", &[], &["idle"])?;
        // Its size is known before it can ask.
        let shown = ended(at_terminal(lab, &["exec", "-it", "box", "stty", "size"])?, 0)?;
        ensure!(shown == "31 101\r\n", "{shown}");
        let shown = ended(at_terminal(lab, &["run", "-it", "--rm", "page", "stty", "size"])?, 0)?;
        ensure!(shown == "31 101\r\n", "{shown}");

        let mut terminal = at_terminal(lab, &["exec", "-it", "--detach-keys", "ctrl-x,x", "box", "sh"])?;
        terminal.until("# ")?;
        terminal.until_raw()?;
        terminal.resize(50, 150)?;
        has_size(&mut terminal, "50 150")?;
        terminal.ask("echo be''gun; sleep 4242", "\nbegun\r\n")?;
        let asleep = || -> anyhow::Result<bool> {
            let look = ["exec", "box", "sh", "-c", "ps | grep '[s]leep 4242'"];
            Ok(lab.shoal(HOST, look)?.status.success())
        };
        eventually("it sleeps", SETTLES_WITHIN, || {
            ensure!(asleep()?, "not yet");
            Ok(())
        })?;
        terminal.type_in("\x18x")?;
        ended(terminal, 0)?;
        ensure!(asleep()?, "it goes on");

        let mut terminal = at_terminal(lab, &["exec", "-it", "box", "sh"])?;
        terminal.until("# ")?;
        terminal.type_in(CTRL_D)?;
        ended(terminal, 0)?;
        let mut terminal = at_terminal(lab, &["exec", "-it", "box", "sh"])?;
        terminal.until("# ")?;
        terminal.type_in("exit 9\n")?;
        ended(terminal, 9)?;

        // Without a terminal its keys are bytes like others.
        let bytes =
            lab.exec(HOST, ["sh", "-c", r"printf 'a\020\021b' | shoal exec -i box cat | od -An -c"])?.success()?;
        ensure!(bytes.split_whitespace().eq(["a", "020", "021", "b"]), "{bytes}");

        // What cannot be run leaves nothing behind, and the terminal as it was.
        let shown = ended(at_terminal(lab, &["run", "-it", "--rm", "page", "no-such-program"])?, 127)?;
        ensure!(shown.contains("no-such-program"), "{shown}");
        let shown = ended(at_terminal(lab, &["exec", "-it", "box", "/etc"])?, 126)?;
        ensure!(shown.contains("is a directory"), "{shown}");

        // Without a terminal there is none to give.
        for (line, code) in [("run -it --name none page sh", 125), ("exec -it box sh", 2)] {
            let said = lab.shoal(HOST, line.split(' '))?.failure(code)?;
            ensure!(said.contains("the input device is not a TTY"), "{said}");
        }
        ensure!(!lab.shoal(HOST, ["ps", "-a"])?.success()?.contains("none"), "nothing was made");
        Ok(())
    })
}

#[test]
fn a_terminal_is_put_back_when_the_daemon_or_the_client_is_killed() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        let mut terminal = at_terminal(lab, &["run", "-it", "--name", "kept", "page", "sh"])?;
        terminal.until("# ")?;
        terminal.until_raw()?;
        terminal.ask("word=remem''bered; echo $((40+2))", "\n42\r\n")?;
        lab.lab(["kill", HOST])?.success()?;
        let shown = ended(terminal, 125)?;
        ensure!(shown.contains("daemon did not answer to the end"), "{shown}");

        lab.lab(["start", HOST])?.success()?;
        // Told at once, or when the managers are one again.
        let mut terminal = eventually("it is there", SETTLES_WITHIN, || {
            ensure!(status(lab, HOST, "kept")? == "running", "not yet");
            at_terminal(lab, &["attach", "kept"])
        })?;
        terminal.until_raw()?;
        terminal.ask("echo $word", "\nremembered\r\n")?;
        terminal.terminate()?;
        ended(terminal, 128 + 15)?;

        let mut terminal = at_terminal(lab, &["attach", "kept"])?;
        terminal.until_raw()?;
        terminal.ask("echo still $word", "\nstill remembered\r\n")?;
        // It ends by somebody else's hand.
        lab.shoal(HOST, ["kill", "kept"])?.success()?;
        ended(terminal, 137)?;
        Ok(())
    })
}
