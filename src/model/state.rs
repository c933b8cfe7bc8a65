//! The life of one model. "Why is it not ready" is this one enum.

use std::fmt;

/// Where a model is between being asked for and being gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Asked for, nothing done yet.
    Declared,
    /// Its files are being listed and brought here.
    Fetching,
    /// Its format is being recognised and a device chosen.
    Placing,
    /// Its backend is reading it.
    Loading,
    /// It is computing its first batches, before any caller waits for one.
    Warming,
    /// It answers.
    Ready,
    /// It answers what it has and takes nothing new.
    Draining,
    /// It has been unloaded.
    Gone,
    /// It could not be loaded; the reason is beside it.
    Failed,
}

impl State {
    pub const ALL: [State; 9] = [
        State::Declared,
        State::Fetching,
        State::Placing,
        State::Loading,
        State::Warming,
        State::Ready,
        State::Draining,
        State::Gone,
        State::Failed,
    ];

    /// The `state` label of `stoker_model_state`.
    pub const fn name(self) -> &'static str {
        match self {
            State::Declared => "declared",
            State::Fetching => "fetching",
            State::Placing => "placing",
            State::Loading => "loading",
            State::Warming => "warming",
            State::Ready => "ready",
            State::Draining => "draining",
            State::Gone => "gone",
            State::Failed => "failed",
        }
    }

    /// Whether a model may go from this state to `next`: forward one step, or out.
    pub const fn may_become(self, next: State) -> bool {
        use State::{Declared, Draining, Failed, Fetching, Gone, Loading, Placing, Ready, Warming};
        matches!(
            (self, next),
            (Declared, Fetching)
                | (Fetching, Placing)
                | (Placing, Loading)
                | (Loading, Warming)
                | (Warming, Ready)
                | (Ready, Draining)
                | (Draining, Gone)
                | (Declared | Fetching | Placing | Loading | Warming, Failed | Gone)
                | (Failed, Gone)
        )
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_is_finite_and_ready_is_reached_step_by_step() {
        assert!(State::ALL.iter().all(|next| !State::Gone.may_become(*next)));
        assert!(State::ALL.iter().all(|state| !state.may_become(*state)));
        assert!(!State::Declared.may_become(State::Ready));
        assert!(!State::Draining.may_become(State::Ready));
        let path = [State::Declared, State::Fetching, State::Placing, State::Loading, State::Warming, State::Ready];
        assert!(path.windows(2).all(|pair| pair[0].may_become(pair[1])));
    }
}
