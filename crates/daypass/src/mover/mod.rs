//! Carries movements out: one task for each that is prepared, and one for each whose time has come. What is done stands in the log, what is
//! half done is found on the target, so a crash at any point leaves nothing that the next start does not see: what was being prepared is
//! prepared anew, and of an exchange that was interrupted one look tells which database is in place.

mod restored;
mod steps;

use crate::{config, control::Control, drift, node::Node};
use daypass_core::{
    command::{Command, Observed},
    environment::Environment,
    event::Actor,
    ids::*,
    movement::{Kept, Made, Movement, MovementKind, MovementState, Names, Phase, Swept},
    names::{DatabaseName, FileName, Reason},
    time::Time,
};
use daypass_gateway::World;
use daypass_targets::{
    Check, Target as _, TargetError, Verdict,
    movement::{MaskKey, Masking, Move, Progress, Scripts, Source, Standing, Tools},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The longest pause between tries of what has to be done in the end.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long what is ready waits for what is in the way of the exchange.
const WAITING: Duration = Duration::from_secs(600);
const NO_SOURCE: &str = "the environment to copy from is not there any more";
/// How often the way back is looked at: whether its time is over.
const LOOK: Duration = Duration::from_secs(30);

/// What movements need besides a target, and how far those are that run here.
pub struct Mover {
    settings: config::Movement,
    data_dir: PathBuf,
    mask_key: MaskKey,
    running: Mutex<BTreeMap<MovementId, Arc<Progress>>>,
    /// Movements whose time has come and that are held up: since when, and by what.
    held_up: Mutex<BTreeMap<MovementId, (Time, String)>>,
}

impl Mover {
    pub fn new(settings: config::Movement, data_dir: &Path, mask_key: MaskKey) -> Mover {
        Mover { settings, data_dir: data_dir.to_owned(), mask_key, running: Mutex::default(), held_up: Mutex::default() }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<MovementId, Arc<Progress>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far a movement is, while it runs here.
    pub fn progress(&self, id: MovementId) -> Option<Arc<Progress>> {
        self.running().get(&id).cloned()
    }

    fn held_up(&self) -> MutexGuard<'_, BTreeMap<MovementId, (Time, String)>> {
        self.held_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a movement waits for, whose time has come.
    pub fn waits_for(&self, id: MovementId) -> Option<String> {
        self.held_up().get(&id).map(|(_, why)| why.clone())
    }

    /// Whether an operator's command restores this environment.
    pub fn restores(&self, environment: &str) -> bool {
        self.settings.restore.contains_key(environment)
    }

    /// Where dumps lie.
    pub fn files(&self) -> PathBuf {
        self.settings.files.clone().unwrap_or_else(|| self.data_dir.join("files"))
    }

    pub fn file(&self, name: &FileName) -> PathBuf {
        self.files().join(name.as_str())
    }

    /// The operator's scripts for an environment.
    pub fn scripts(&self, environment: &str) -> Result<Scripts, String> {
        let folder = self.settings.scripts.clone().unwrap_or_else(|| self.data_dir.join("scripts")).join(environment);
        Scripts::in_folder(&folder).map_err(|e| words(&e))
    }

    /// After a movement of others: what bears our mark and is none of this environment's loses its rights, and the operator's scripts run.
    /// What was done is in `swept` also when it broke off.
    pub async fn sweep_in_place(&self, node: &Node, movement: &Movement, swept: &mut Vec<Swept>) -> Result<(), String> {
        let env = node.ledger(|ledger| ledger.environment(movement.environment).cloned()).ok_or("its environment is not known any more")?;
        // the database has its name already
        let names = Names { scratch: env.spec.database.clone(), ..Names::of(&env, movement.id)? };
        let (tools, progress) = (self.tools(movement.id), Progress::default());
        let masking = self.masking(node, &env, &movement.kind);
        let job = Move { environment: &env, names: &names, tools: &tools, masking: &masking, progress: &progress };
        let target = node.target(env.target).await.map_err(|e| words(&e))?;
        // nobody has a pass here by now
        let theirs = drift::theirs(node, |_| BTreeSet::new());
        swept.extend(target.sweep_marked(env.id, &env.spec.database, &theirs).await.map_err(|e| words(&e))?);
        let scripts = self.scripts(env.spec.name.as_str())?;
        if !scripts.is_empty() || !scripts.skipped.is_empty() || !env.masks.is_empty() || masking.required {
            swept.extend(target.run_scripts(&job, &scripts).await.map_err(|e| words(&e))?);
        }
        Ok(())
    }

    /// What would stand in the way of a movement.
    pub async fn look_ahead(&self, node: &Node, env: &Environment, kind: &MovementKind, id: MovementId) -> Result<Vec<Check>, String> {
        let (names, tools, progress) = (Names::of(env, id)?, self.tools(id), Progress::default());
        // checks that look at the copy take the place of declarations
        let checked = self.scripts(env.spec.name.as_str()).is_ok_and(|scripts| !scripts.checks.is_empty());
        let masking = self.masking(node, env, kind);
        let masking = Masking { required: masking.required && !checked, ..masking };
        let job = Move { environment: env, names: &names, tools: &tools, masking: &masking, progress: &progress };
        let target = node.target(env.target).await.map_err(|e| words(&e))?;
        let looked = match kind {
            MovementKind::Refresh { from } => {
                let source = node.ledger(|ledger| ledger.environment(*from).cloned()).ok_or(NO_SOURCE)?;
                let from = node.target(source.target).await.map_err(|e| words(&e))?;
                let same_server = source.target == env.target;
                target.look_ahead(&job, Some(&Source::Database { target: &from, database: &source.spec.database, same_server })).await
            }
            MovementKind::Import { file } => match self.dump(file) {
                Ok(path) => target.look_ahead(&job, Some(&Source::File(&path))).await,
                Err(why) => return Ok(vec![Check::missing("the file is not there", why)]),
            },
            // what the command brings up is seen when it is up
            MovementKind::Restore { .. } => target.look_ahead(&job, Some(&Source::Server(BTreeMap::new()))).await,
            MovementKind::Undo { .. } => target.look_ahead(&job, None).await,
            MovementKind::External | MovementKind::Export { .. } => Ok(Vec::new()),
        };
        looked.map_err(|e| words(&e))
    }

    /// Where a dump lies.
    fn dump(&self, file: &FileName) -> Result<PathBuf, String> {
        let path = self.file(file);
        // a link would lead out of the folder
        let plain = std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() || meta.is_dir());
        if plain { Ok(path) } else { Err(format!("there is no file {file} in {}", self.files().display())) }
    }

    /// What comes from elsewhere is masked, or shows that it was looked through, where the policy asks for that.
    fn masking(&self, node: &Node, env: &Environment, kind: &MovementKind) -> Masking {
        let from_elsewhere = matches!(kind, MovementKind::Refresh { .. } | MovementKind::Import { .. } | MovementKind::External);
        let asked = from_elsewhere && node.ledger(|ledger| ledger.policy(env).masking == daypass_core::policy::Masking::Required);
        Masking { key: self.mask_key.clone(), required: asked }
    }

    fn tools(&self, id: MovementId) -> Tools {
        let (settings, work) = (&self.settings, self.data_dir.join("work").join(id.to_string()));
        Tools { postgres: settings.postgres_bin.clone(), sqlpackage: settings.sqlpackage.clone(), alone: settings.alone, jobs: settings.jobs.max(1), work }
    }
}

/// What a movement came to.
#[derive(Default)]
struct Done {
    kept: Option<Kept>,
    made: Option<Made>,
}

/// One movement that is carried out.
struct Carry {
    node: Arc<Node>,
    control: Control,
    mover: Arc<Mover>,
    movement: Movement,
    env: Environment,
    names: Names,
    tools: Tools,
    masking: Masking,
    progress: Arc<Progress>,
}

/// Sees to all movements for as long as the process lives.
pub async fn run(node: Arc<Node>, control: Control, mover: Arc<Mover>) {
    // what the process before may have left
    for movement in node.ledger(|ledger| ledger.movements().filter(|movement| needs_settling(movement)).cloned().collect::<Vec<_>>()) {
        if let Some(carry) = Carry::of(&node, &control, &mover, movement) {
            tokio::spawn(carry.settle_interrupted());
        }
    }
    let mut changes = node.changes();
    let (mut told, mut prepared) = (BTreeSet::new(), BTreeSet::new());
    loop {
        changes.borrow_and_update();
        let now = node.now();
        let under_way: Vec<Movement> = node.ledger(|ledger| {
            let moving = ledger.environments().filter_map(|env| ledger.movement(env.moving?));
            moving.filter(|movement| movement.kind.is_ours() || matches!(movement.state, MovementState::Planned { .. })).cloned().collect()
        });
        // what was given up while it waited for its time has no task that would clean up behind it
        prepared.extend(under_way.iter().filter(|movement| movement.kind.is_prepared()).map(|movement| movement.id));
        prepared.retain(|id| {
            let known = node.ledger(|ledger| ledger.movement(*id).cloned());
            let Some(known) = known.filter(|known| !known.is_under_way() && mover.progress(*id).is_none()) else { return true };
            mover.held_up().remove(id);
            if needs_settling(&known)
                && let Some(carry) = Carry::of(&node, &control, &mover, known)
            {
                tokio::spawn(carry.settle_interrupted());
            }
            false
        });
        let mut next = LOOK;
        for movement in under_way {
            match movement.state {
                MovementState::Planned { cuts_at, phase, .. } => {
                    tell(&node, &movement, &mut told);
                    // who connects in the meantime is told as well
                    next = next.min(Duration::from_secs(1));
                    if phase < Phase::Ready {
                        start(&node, &control, &mover, movement);
                        continue;
                    }
                    if let Ok(left @ 1..) = u64::try_from(cuts_at.since(now)) {
                        next = next.min(Duration::from_micros(left + 1_000));
                    }
                    // the ledger says whether it is
                    let due = Command::Observed(Observed::Due { movement: movement.id });
                    if node.ledger(|ledger| ledger.decide(&due, Actor::System, now)).is_ok_and(|events| !events.is_empty()) {
                        if movement.kind.is_ours() {
                            begin(&node, &control, &mover, movement);
                        } else {
                            let _ = control.run(due, Actor::System).await;
                        }
                    } else {
                        // what is held up for another reason begins to count anew
                        mover.held_up().remove(&movement.id);
                    }
                }
                MovementState::Running { .. } => start(&node, &control, &mover, movement),
                _ => {}
            }
        }
        let over: Vec<MovementId> = node.ledger(|ledger| {
            let in_use: BTreeSet<MovementId> = ledger
                .movements()
                .filter(|movement| !movement.state.is_final())
                .filter_map(|movement| match movement.kind {
                    MovementKind::Undo { of } => Some(of),
                    _ => None,
                })
                .collect();
            let over = ledger.movements().filter(|movement| movement.kept.as_ref().is_some_and(|kept| kept.until <= now) && !in_use.contains(&movement.id));
            over.map(|movement| movement.id).collect()
        });
        for id in over {
            if let Err(why) = drop_kept(&node, &control, id).await {
                node.troubles.note(format!("movement:{id}"), format!("the database of before cannot be dropped: {why}"), now);
            } else {
                node.troubles.clear(&format!("movement:{id}"));
            }
        }
        let _ = tokio::time::timeout(next, changes.changed()).await;
    }
}

/// A task for it, unless one has it.
fn start(node: &Arc<Node>, control: &Control, mover: &Arc<Mover>, movement: Movement) {
    if mover.progress(movement.id).is_none()
        && let Some(carry) = Carry::of(node, control, mover, movement)
    {
        tokio::spawn(carry.carry_out());
    }
}

/// Ends access, when nothing is seen that would keep the names from being exchanged after it; else it is tried again for a while.
fn begin(node: &Arc<Node>, control: &Control, mover: &Arc<Mover>, movement: Movement) {
    if mover.progress(movement.id).is_some() {
        return;
    }
    let Some(carry) = Carry::of(node, control, mover, movement) else { return };
    tokio::spawn(async move {
        let id = carry.movement.id;
        let looked = async { carry.node.target(carry.env.target).await?.in_the_way(&carry.job()).await };
        let why = match looked.await {
            Ok(checks) => in_the_way(&checks),
            Err(error) => Some(words(&error)),
        };
        let now = carry.node.now();
        match why {
            None => {
                carry.mover.held_up().remove(&id);
                let _ = carry.report(Observed::Due { movement: id }).await;
            }
            Some(why) => {
                let since = carry.mover.held_up().entry(id).or_insert((now, String::new())).0;
                carry.mover.held_up().insert(id, (since, why.clone()));
                if now.since(since) > WAITING.as_micros() as i64 {
                    carry.mover.held_up().remove(&id);
                    carry.fail(&format!("its time had come, and for {} minutes this was in the way: {why}", WAITING.as_secs() / 60)).await;
                } else {
                    // whoever is in the way may go by themselves; the next look is that of the next second
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
        carry.mover.running().remove(&id);
        carry.node.wake();
    });
}

/// What is missing, in a sentence.
fn in_the_way(checks: &[Check]) -> Option<String> {
    let missing = checks.iter().filter(|check| check.verdict == Verdict::Missing).map(|check| format!("{}: {}", check.what, check.remedy));
    let missing = missing.collect::<Vec<_>>();
    (!missing.is_empty()).then(|| missing.join(" · "))
}

/// Whether the process before may have left something that nobody goes on with. What was being prepared is prepared anew, and who was
/// waiting for the last session to end goes on waiting.
fn needs_settling(movement: &Movement) -> bool {
    let left = match movement.state {
        MovementState::Running { phase } => phase != Phase::Freeze,
        MovementState::Failed { .. } | MovementState::SignedOff { .. } | MovementState::Withdrawn { .. } => true,
        MovementState::Planned { .. } | MovementState::Finished { .. } => false,
    };
    movement.kind.is_ours() && left
}

/// Everybody who is connected is told in their own tool, once.
fn tell(node: &Node, movement: &Movement, told: &mut BTreeSet<(MovementId, SessionId)>) {
    let MovementState::Planned { cuts_at, .. } = movement.state else { return };
    let left = u64::try_from(cuts_at.since(node.now()) / 1_000_000).unwrap_or_default();
    let (prepared, span) = (movement.kind.is_prepared(), crate::cli::show::left(left));
    let when = match left {
        0 if prepared => "as soon as the new one is ready".to_owned(),
        _ if prepared => format!("when the new one is ready, not before {cuts_at}, which is in {span}"),
        _ => format!("in {span}, at {cuts_at} at the latest"),
    };
    let words = format!("the database will be replaced {when}: your session ends then, and what you write until then goes with the database of before");
    for session in node.sessions.all().iter().filter(|session| session.environment == movement.environment) {
        if told.insert((movement.id, session.id)) {
            session.tell(&words);
        }
    }
}

async fn drop_kept(node: &Node, control: &Control, id: MovementId) -> Result<(), String> {
    let found = node.ledger(|ledger| {
        let movement = ledger.movement(id)?;
        Some((ledger.environment(movement.environment)?.target, movement.kept.clone()?.database))
    });
    let Some((target, database)) = found else { return Ok(()) };
    let target = node.target(target).await.map_err(|e| e.to_string())?;
    target.drop_kept(&database).await.map_err(|e| e.to_string())?;
    control.run(Command::Observed(Observed::KeptGone { movement: id }), Actor::System).await.map(drop).map_err(|e| e.to_string())
}

impl Carry {
    /// Marks the movement as running here. None when its environment is not known.
    fn of(node: &Arc<Node>, control: &Control, mover: &Arc<Mover>, movement: Movement) -> Option<Carry> {
        let env = node.ledger(|ledger| ledger.environment(movement.environment).cloned())?;
        let names = match Names::of(&env, movement.id) {
            Ok(names) => names,
            Err(why) => {
                tracing::error!(%why, "a movement has no names");
                return None;
            }
        };
        let (progress, tools, masking) = (Arc::new(Progress::default()), mover.tools(movement.id), mover.masking(node, &env, &movement.kind));
        mover.running().insert(movement.id, progress.clone());
        Some(Carry { node: node.clone(), control: control.clone(), mover: mover.clone(), movement, env, names, tools, masking, progress })
    }

    fn job(&self) -> Move<'_> {
        Move { environment: &self.env, names: &self.names, tools: &self.tools, masking: &self.masking, progress: &self.progress }
    }

    /// The state of the movement as the log has it now.
    fn state(&self) -> Option<MovementState> {
        self.node.ledger(|ledger| ledger.movement(self.movement.id).map(|movement| movement.state.clone()))
    }

    async fn carry_out(self) {
        let done = tokio::select! {
            done = self.steps() => done,
            () = self.stopped() => Err("it was stopped".to_owned()),
        };
        match done {
            Ok(Some(done)) => self.finish(done).await,
            // what takes the place is ready; another task exchanges it when its time has come
            Ok(None) => {}
            Err(why) => self.fail(&why).await,
        }
        self.leave();
    }

    async fn settle_interrupted(self) {
        match self.movement.state {
            MovementState::Running { .. } => self.fail("Daypass was stopped in the middle of it").await,
            _ => self.discard().await,
        }
        self.leave();
    }

    fn leave(&self) {
        let _ = std::fs::remove_dir_all(&self.tools.work);
        if let MovementKind::Export { file } = &self.movement.kind {
            // half a dump is nobody's
            let part = self.job().part(&self.mover.file(file));
            let _ = std::fs::remove_file(&part).or_else(|_| std::fs::remove_dir_all(&part));
        }
        self.mover.running().remove(&self.movement.id);
        // whoever waits for this place looks again
        self.node.wake();
    }

    /// Returns when somebody stopped the movement.
    async fn stopped(&self) {
        let mut changes = self.node.changes();
        loop {
            changes.borrow_and_update();
            if !matches!(self.state(), Some(MovementState::Planned { .. } | MovementState::Running { .. })) {
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn report(&self, observed: Observed) -> Result<(), String> {
        self.control.run(Command::Observed(observed), Actor::System).await.map(drop).map_err(|e| e.to_string())
    }

    /// Says it until it is written: it is true.
    async fn insist(&self, command: Command) {
        let mut pause = Duration::from_millis(200);
        while let Err(error) = self.control.run(command.clone(), Actor::System).await {
            tracing::warn!(%error, "what came of a movement could not be recorded; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn finish(&self, done: Done) {
        self.insist(Command::Observed(Observed::Moved { movement: self.movement.id, kept: done.kept, made: done.made })).await;
        self.node.troubles.clear(&format!("movement:{}", self.movement.id));
    }

    /// It did not come to its end. Unless the names were exchanged already, the old database is in place; that is looked up, not supposed.
    async fn fail(&self, why: &str) {
        let swapping = matches!(self.state(), Some(MovementState::Running { phase: Phase::Swap }));
        let say = || Command::FailMovement { movement: self.movement.id, why: reason(why) };
        if !swapping {
            self.insist(say()).await;
            self.discard().await;
        } else if self.settle().await == Standing::New {
            self.finish(Done { kept: self.kept(), made: None }).await;
        } else {
            self.insist(say()).await;
        }
    }

    /// Removes what is half made, and nothing else: another movement may be under way. For as long as it takes.
    async fn discard(&self) {
        let mut pause = Duration::from_millis(200);
        loop {
            let target = self.node.target(self.env.target).await;
            let done = match target {
                Ok(target) => target.discard(&self.job()).await,
                Err(error) => Err(error),
            };
            if self.cleaned(done, &mut pause).await.is_some() {
                return;
            }
        }
    }

    /// Finds out which database is in place, opens it, and removes what is half made; for as long as it takes.
    async fn settle(&self) -> Standing {
        let mut pause = Duration::from_millis(200);
        loop {
            let target = self.node.target(self.env.target).await;
            let done = match target {
                Ok(target) => target.settle(&self.job(), &self.incoming()).await,
                Err(error) => Err(error),
            };
            if let Some(standing) = self.cleaned(done, &mut pause).await {
                return standing;
            }
        }
    }

    /// None, after a pause, when it is to be tried again.
    async fn cleaned<T>(&self, done: Result<T, TargetError>, pause: &mut Duration) -> Option<T> {
        let trouble = format!("movement:{}", self.movement.id);
        match done {
            Ok(done) => {
                self.node.troubles.clear(&trouble);
                Some(done)
            }
            Err(error) => {
                self.node.troubles.note(&trouble, format!("what the movement left cannot be cleaned up: {error}"), self.node.now());
                tokio::time::sleep(*pause).await;
                *pause = (*pause * 2).min(LONGEST_PAUSE);
                None
            }
        }
    }

    /// The database that is to take the name.
    fn incoming(&self) -> DatabaseName {
        let back = match self.movement.kind {
            MovementKind::Undo { of } => self.node.ledger(|ledger| ledger.movement(of).and_then(|movement| movement.kept.clone())),
            _ => None,
        };
        back.map_or_else(|| self.names.scratch.clone(), |kept| kept.database)
    }

    fn kept(&self) -> Option<Kept> {
        let days = self.node.ledger(|ledger| ledger.policy(&self.env).keep_days);
        Some(Kept { database: self.names.old.clone(), until: self.node.now().days_after(days) })
    }
}

/// A text of a program, as a reason: of bounded length, without control characters.
fn reason(why: &str) -> Reason {
    let safe: String = why.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).take(1_000).collect();
    safe.parse().unwrap_or_else(|_| "it failed".parse().unwrap_or_else(|_| unreachable!("a constant that is a reason")))
}

fn words(error: &TargetError) -> String {
    error.to_string()
}
