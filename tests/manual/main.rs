//! Writes what the packages carry of the command lines: man pages and shell completions, out of clap's description of each program.
//!
//! Invariant: the same source gives the same bytes. `manual DIR` writes `PROGRAM/man`, `PROGRAM/bash`, `PROGRAM/zsh` and `PROGRAM/fish` below DIR.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory, Parser};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

/// Writes the man pages and shell completions of both programs.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to.
    directory: PathBuf,
}

fn main() -> io::Result<()> {
    let directory = Arguments::parse().directory;
    for program in [counterfoil::command::Arguments::command(), counterfoil_hub::arguments()] {
        let place = directory.join(program.get_name());
        for kind in ["man", "bash", "zsh", "fish"] {
            fs::create_dir_all(place.join(kind))?;
        }
        pages(&program, &place.join("man"))?;
        complete(program, &place)?;
    }
    Ok(())
}

/// One page for the program and one for each of its commands, `program-command.1`.
fn pages(program: &Command, place: &Path) -> io::Result<()> {
    let mut program = program.clone().disable_help_subcommand(true);
    program.build();
    let name = program.get_name().to_owned();
    write_page(&program, &name, place)?;
    for command in program.get_subcommands() {
        write_page(command, &format!("{name}-{}", command.get_name()), place)?;
    }
    Ok(())
}

fn write_page(command: &Command, name: &str, place: &Path) -> io::Result<()> {
    let mut page = Vec::new();
    let version = env!("CARGO_PKG_VERSION");
    Man::new(command.clone()).title(name.to_uppercase()).source(format!("Counterfoil {version}")).render(&mut page)?;
    let file = place.join(format!("{name}.1"));
    fs::write(&file, page)?;
    // Debian wants pages compressed; without the file's name and time, so that the same page gives the same bytes.
    let compressed = std::process::Command::new("gzip").args(["--force", "--no-name", "-9"]).arg(&file).status()?;
    if compressed.success() { Ok(()) } else { Err(io::Error::other(format!("gzip ended with {compressed}"))) }
}

fn complete(mut program: Command, place: &Path) -> io::Result<()> {
    let name = program.get_name().to_owned();
    let shells = [
        (Shell::Bash, format!("bash/{name}")),
        (Shell::Zsh, format!("zsh/_{name}")),
        (Shell::Fish, format!("fish/{name}.fish")),
    ];
    for (shell, file) in shells {
        let mut script = Vec::new();
        generate(shell, &mut program, &name, &mut script);
        fs::write(place.join(file), script)?;
    }
    Ok(())
}
