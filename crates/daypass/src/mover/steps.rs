//! The steps of one movement, in order. Each says in the log that it begins.

use super::{Carry, Done, NO_SOURCE, in_the_way, restored::Restored, words};
use daypass_core::{
    command::Observed,
    movement::{MovementKind, MovementState, Phase, Swept},
    pass::State,
};
use daypass_gateway::World;
use daypass_targets::{AnyTarget, Target as _, movement::Source};
use std::time::Duration;

/// How long accounts and sessions may take to go.
const FREEZE: Duration = Duration::from_secs(120);

impl Carry {
    /// What is to be done next in a row: the new database is prepared, or takes its place. None: it waits for its time.
    pub(super) async fn steps(&self) -> Result<Option<Done>, String> {
        let target = self.node.target(self.env.target).await.map_err(|e| words(&e))?;
        if matches!(self.movement.state, MovementState::Planned { .. }) {
            self.prepare(&target).await?;
            return Ok(None);
        }
        if let MovementKind::Export { file } = &self.movement.kind {
            self.reach(Phase::Copy).await?;
            let folder = self.mover.files();
            std::fs::create_dir_all(&folder).map_err(|e| format!("the folder {} cannot be made: {e}", folder.display()))?;
            let made = target.export(&self.job(), &self.mover.file(file)).await.map_err(|e| words(&e))?;
            return Ok(Some(Done { made: Some(made), kept: None }));
        }
        self.freeze().await?;
        if self.movement.kind.is_prepared() {
            let carried = target.carry_over(&self.job()).await.map_err(|e| words(&e))?;
            self.swept(carried).await?;
        }
        self.reach(Phase::Swap).await?;
        target.swap(&self.job(), &self.incoming()).await.map_err(|e| words(&e))?;
        Ok(Some(Done { kept: self.kept(), made: None }))
    }

    /// The new database is made beside the old one, in which people work.
    async fn prepare(&self, target: &AnyTarget) -> Result<(), String> {
        self.reach(Phase::Check).await?;
        let checks = self.mover.look_ahead(&self.node, &self.env, &self.movement.kind, self.movement.id).await?;
        if let Some(why) = in_the_way(&checks) {
            return Err(why);
        }
        self.mover.scripts(self.env.spec.name.as_str())?;
        self.source_in_place().await;
        self.reach(Phase::Copy).await?;
        self.copy(target).await?;
        self.reach(Phase::Sweep).await?;
        // as they are now that the copy is made
        let scripts = self.mover.scripts(self.env.spec.name.as_str())?;
        let swept = target.sweep(&self.job(), &scripts).await.map_err(|e| words(&e))?;
        self.swept(swept).await?;
        self.reach(Phase::Ready).await
    }

    /// While the source's own database is exchanged, which takes seconds, there is nothing to copy.
    async fn source_in_place(&self) {
        let MovementKind::Refresh { from } = self.movement.kind else { return };
        let mut changes = self.node.changes();
        loop {
            changes.borrow_and_update();
            let exchanging = self.node.ledger(|ledger| {
                let source = ledger.environment(from)?;
                ledger.movement(source.frozen_by?).map(|movement| matches!(movement.state, MovementState::Running { .. }) && movement.kind.is_ours())
            });
            if exchanging != Some(true) || changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn swept(&self, swept: Vec<Swept>) -> Result<(), String> {
        self.report(Observed::Swept { movement: self.movement.id, swept }).await
    }

    async fn reach(&self, phase: Phase) -> Result<(), String> {
        self.report(Observed::Reached { movement: self.movement.id, phase }).await?;
        // somebody may have stopped it, or begun it anew, in the meantime
        match self.state() {
            Some(MovementState::Planned { phase: now, .. } | MovementState::Running { phase: now }) if now == phase => Ok(()),
            _ => Err("it was stopped".to_owned()),
        }
    }

    /// Until no session is left and no account: what ended is gone from the target, not only from the gateway.
    async fn freeze(&self) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + FREEZE;
        let (mut changes, mut sessions) = (self.node.changes(), self.node.sessions.changes());
        loop {
            changes.borrow_and_update();
            sessions.borrow_and_update();
            let left: Vec<String> = self.node.ledger(|ledger| {
                let left = ledger.open_passes().filter(|pass| pass.environment == self.env.id && *pass.state() != State::Requested);
                left.map(|pass| pass.account.to_string()).collect()
            });
            let connected = self.node.sessions.all().iter().filter(|session| session.environment == self.env.id).count();
            if left.is_empty() && connected == 0 {
                return Ok(());
            }
            let waited = async {
                tokio::select! {
                    _ = changes.changed() => {}
                    _ = sessions.changed() => {}
                }
            };
            if tokio::time::timeout_at(deadline, waited).await.is_err() {
                return Err(format!("after {} seconds these accounts are still on the target: {} ({connected} sessions)", FREEZE.as_secs(), left.join(", ")));
            }
        }
    }

    async fn copy(&self, target: &AnyTarget) -> Result<(), String> {
        let job = self.job();
        match &self.movement.kind {
            MovementKind::Refresh { from } => {
                let source = self.node.ledger(|ledger| ledger.environment(*from).cloned()).ok_or(NO_SOURCE)?;
                let same_server = source.target == self.env.target;
                let from = self.node.target(source.target).await.map_err(|e| words(&e))?;
                let source = Source::Database { target: &from, database: &source.spec.database, same_server };
                target.copy(&job, &source).await.map_err(|e| words(&e))
            }
            MovementKind::Import { file } => {
                let path = self.mover.dump(file)?;
                target.copy(&job, &Source::File(&path)).await.map_err(|e| words(&e))
            }
            MovementKind::Restore { to } => {
                let name = self.env.spec.name.as_str();
                let command = self.mover.settings.restore.get(name);
                let command = command.ok_or_else(|| format!("no command restores {name}: movement.restore in the configuration names one"))?;
                let restored = Restored::start(command, &self.env, *to).await?;
                let done = target.copy(&job, &Source::Server(restored.parameters.clone())).await.map_err(|e| words(&e));
                restored.stop().await;
                done
            }
            MovementKind::External | MovementKind::Export { .. } | MovementKind::Undo { .. } => Err("there is nothing to copy in this movement".to_owned()),
        }
    }
}
