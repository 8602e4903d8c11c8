//! `larder completions` and `larder man`.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::{Cli, ManArgs};
use crate::failure::Failure;
use crate::output::Output;

/// Writes the completion script of a shell.
pub(crate) fn completions(shell: Shell, out: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "larder", &mut script);
    std::io::Write::write_all(out.writer(), &script)?;
    Ok(())
}

/// Writes the page of `larder`, or the pages of all commands into a directory.
pub(crate) fn man(args: &ManArgs, out: &mut Output) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = &args.dir else {
        let page = page(&command)?;
        std::io::Write::write_all(out.writer(), &page)?;
        return Ok(());
    };
    fs::create_dir_all(dir).map_err(|error| Failure::file(dir.display(), &error))?;
    write_pages(&command, "larder", dir)
}

fn write_pages(command: &clap::Command, name: &str, dir: &Path) -> Result<(), Failure> {
    let path = dir.join(format!("{name}.1"));
    fs::write(&path, page(command)?).map_err(|error| Failure::file(path.display(), &error))?;
    for sub in command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
    {
        write_pages(sub, &format!("{name}-{}", sub.get_name()), dir)?;
    }
    Ok(())
}

/// `build` has given every command its full name, which becomes the title.
fn page(command: &clap::Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    Ok(page)
}
