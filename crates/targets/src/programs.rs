//! Running the engines' own programs: a private folder, what they say, how they ended.

use crate::{TargetError, movement::Progress};
use std::{
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
};

/// Lines of a program's own words that are kept for an error.
const TAIL: usize = 12;

fn refused(why: impl Into<String>) -> TargetError {
    TargetError::Refused(why.into())
}

/// A private folder for one movement; it goes with its owner.
pub struct Workshop<'a>(pub &'a Path);

impl<'a> Workshop<'a> {
    pub fn open(work: &'a Path) -> Result<Workshop<'a>, TargetError> {
        let _ = std::fs::remove_dir_all(work);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(work);
        made.map_err(|e| refused(format!("the folder {} cannot be made: {e}", work.display())))?;
        Ok(Workshop(work))
    }

    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, TargetError> {
        let path = self.0.join(name);
        let file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| refused(format!("{} cannot be written: {e}", path.display())))?;
        Ok(path)
    }
}

impl Drop for Workshop<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0);
    }
}

/// Starts a program; its absence is an error in words.
pub fn start(mut command: Command) -> Result<Child, TargetError> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.spawn().map_err(|e| refused(format!("{name} could not be started: {e}")))
}

/// Reads what a program says, counts the tables that it says are done, and keeps the last lines for an error.
pub async fn listen(words: impl AsyncRead + Unpin, progress: Option<&Progress>) -> String {
    let mut words = BufReader::new(words);
    let (mut tail, mut quoting) = (std::collections::VecDeque::new(), false);
    while let Some(line) = line(&mut words).await {
        if let Some(progress) = progress
            && (line.contains("processing data for table") || line.starts_with("Processing Table"))
        {
            progress.another_object();
        }
        // what it does is no news; what goes wrong is
        let chatter =
            ["creating ", "processing ", "executing ", "connecting ", "launching ", "finished ", "implied ", "entering ", "dumping contents", "last built-in"];
        if progress.is_some() && !line.contains("error") && chatter.iter().any(|word| line.contains(word)) {
            continue;
        }
        // what stood in a row, or in a statement, is the database's and does not go on record
        if ["CONTEXT:", "DETAIL:", "STATEMENT:", "QUERY:", "LINE ", "Command was:"].iter().any(|word| line.contains(word)) {
            quoting = true;
            continue;
        }
        // such a quotation goes on until the program speaks again
        quoting = quoting && !line.contains(": ");
        if quoting {
            continue;
        }
        tail.push_back(line);
        if tail.len() > TAIL {
            tail.pop_front();
        }
    }
    Vec::from(tail).join("\n")
}

/// The most of a line that is kept: a program may say a whole statement of any size in one.
const LINE: usize = 600;

/// The next line, cut; None at the end.
async fn line(from: &mut BufReader<impl AsyncRead + Unpin>) -> Option<String> {
    let (mut kept, mut any) = (Vec::new(), false);
    loop {
        let bytes = from.fill_buf().await.ok()?;
        if bytes.is_empty() {
            return any.then(|| String::from_utf8_lossy(&kept).into_owned());
        }
        any = true;
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        kept.extend_from_slice(&part[..part.len().min(LINE - kept.len())]);
        let used = end.map_or(bytes.len(), |end| end + 1);
        from.consume(used);
        if end.is_some() {
            return Some(String::from_utf8_lossy(&kept).into_owned());
        }
    }
}

/// The program ended well, or this is what it said.
pub fn ended(name: &str, status: std::process::ExitStatus, said: &str) -> Result<(), TargetError> {
    match status.success() {
        true => Ok(()),
        false if said.trim().is_empty() => Err(refused(format!("{name} ended with {status}"))),
        false => Err(refused(format!("{name}: {}", said.trim()))),
    }
}

/// Runs a program to its end; gives what it printed.
pub async fn run(name: &str, command: Command, progress: Option<&Progress>) -> Result<String, TargetError> {
    run_and_hear(name, command, progress).await.map(|(printed, _)| printed)
}

/// The same, with the last of what it said beside that.
pub async fn run_and_hear(name: &str, command: Command, progress: Option<&Progress>) -> Result<(String, String), TargetError> {
    let mut child = start(command)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = async {
        match stdout {
            Some(stdout) => listen_all(stdout).await,
            None => String::new(),
        }
    };
    let heard = async {
        match stderr {
            Some(stderr) => listen(stderr, progress).await,
            None => String::new(),
        }
    };
    let (printed, said) = tokio::join!(read, heard);
    let status = child.wait().await.map_err(|e| refused(format!("{name}: {e}")))?;
    ended(name, status, &said)?;
    Ok((printed, said))
}

/// The most that a list of a dump, or a script, may print.
const MOST_PRINTED: u64 = 64 * 1024 * 1024;

async fn listen_all(from: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let mut from = tokio::io::AsyncReadExt::take(from, MOST_PRINTED);
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut from, &mut bytes).await;
    // what does not fit is read and thrown away, so that the program can end
    let _ = tokio::io::copy(from.get_mut(), &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether other users of this machine cannot read the arguments of our programs: then /proc says so itself (proc(5), hidepid).
pub fn arguments_are_private() -> bool {
    std::fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| hides(&mounts))
}

fn hides(mounts: &str) -> bool {
    // the last mount on a place is the one that counts
    let options = mounts.lines().rev().map(|line| line.split(' ').collect::<Vec<_>>()).find(|mount| mount.get(1) == Some(&"/proc"));
    let options = options.as_deref().and_then(|mount| mount.get(3)).copied().unwrap_or_default();
    options.split(',').any(|option| option.strip_prefix("hidepid=").is_some_and(|value| value != "0" && value != "off"))
}

#[cfg(test)]
mod tests {
    use super::hides;

    #[tokio::test]
    async fn what_a_program_says_is_kept_without_what_it_quotes() {
        let said = format!(
            "pg_restore: error: COPY failed for table \"t\": ERROR:  bad\nDETAIL:  Key (email)=(a@b.c)\nCONTEXT:  COPY t, line 7: \"secret\"\n\t{}\npg_restore: warning: it stops",
            "secret ".repeat(100_000)
        );
        let kept = super::listen(said.as_bytes(), None).await;
        assert_eq!(kept, "pg_restore: error: COPY failed for table \"t\": ERROR:  bad\npg_restore: warning: it stops");
        let long = "x".repeat(1_000_000);
        assert_eq!(super::listen(long.as_bytes(), None).await.len(), super::LINE);
    }

    #[test]
    fn arguments_are_private_where_proc_says_so() {
        assert!(!hides("proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0"));
        assert!(!hides("proc /proc proc rw,hidepid=off 0 0") && !hides("proc /proc proc rw,hidepid=0 0 0") && !hides(""));
        assert!(hides("sysfs /sys sysfs rw 0 0\nproc /proc proc rw,relatime,hidepid=2 0 0"));
        assert!(hides("proc /proc proc rw,gid=4,hidepid=invisible 0 0"));
        assert!(!hides("proc /proc proc rw,hidepid=2 0 0\nproc /proc proc rw 0 0"), "the later mount lies over the first");
    }
}
