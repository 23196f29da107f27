//! Where a port session is: told to, and taken up by, a later process.

use tokio::time::Instant;

use super::inputs::Inputs;
use super::multiplexed::Multiplexed;
use super::{Carriage, Flows, Stage};
use crate::recorder::{FlowEvent, FlowStage, FlowState, Mode};
use crate::session::printable;

impl Flows {
    /// Goes on where an earlier process was.
    pub(in crate::relay) fn go_on(&mut self, state: &FlowState, now: Instant) {
        self.next_output = state.output;
        self.inputs = Inputs::after(state.input);
        self.connections.go_on(state, now);
        self.stage = stage(state);
    }

    /// Whether a later process has to be told something.
    pub(in crate::relay) fn is_unnoted(&self) -> bool {
        self.unnoted.anything
    }

    /// Whether the handshake went on since the last time.
    pub(in crate::relay) fn has_new_stage(&self) -> bool {
        self.unnoted.stage
    }

    /// What has changed since the last time.
    pub(in crate::relay) fn state(&mut self) -> FlowState {
        let unnoted = std::mem::take(&mut self.unnoted);
        let mut state =
            FlowState { output: self.next_output, input: self.inputs.next(), ..FlowState::default() };
        state.set_digests(&unnoted.inputs);
        if unnoted.stage {
            state.stage = self.stage.told();
        }
        if let Stage::Running { carriage: Carriage::Multiplexed(streams), .. } = &self.stage {
            [state.up, state.down] = streams.places();
        }
        self.connections.state(&mut state);
        state
    }

    /// Connections that began, and those of them that are open.
    pub(in crate::relay) fn counts(&self) -> (u64, usize) {
        (self.connections.opened(), self.connections.open_now())
    }
}

impl Stage {
    fn told(&self) -> Option<FlowStage> {
        match self {
            Self::Waiting => None,
            Self::Requested { local_forwarding, agent } => {
                Some(FlowStage::Requested { local_forwarding: *local_forwarding, agent: agent.clone() })
            }
            Self::Answered { local_forwarding, event, .. } => {
                let FlowEvent::Handshake { mode, agent, client } = event.clone() else { return None };
                Some(FlowStage::Answered { local_forwarding: *local_forwarding, mode, agent, client })
            }
            Self::Running { local_forwarding, carriage } => {
                let mode = match carriage {
                    Carriage::Multiplexed(_) => Mode::Multiplexed,
                    Carriage::Basic => Mode::Basic,
                };
                Some(FlowStage::Running { local_forwarding: *local_forwarding, mode })
            }
        }
    }
}

fn stage(state: &FlowState) -> Stage {
    match state.stage.clone() {
        None => Stage::Waiting,
        Some(FlowStage::Requested { local_forwarding, agent }) => {
            Stage::Requested { local_forwarding, agent }
        }
        Some(FlowStage::Answered { local_forwarding, mode, agent, client }) => {
            let event = FlowEvent::Handshake { mode, agent: printable(&agent), client: printable(&client) };
            Stage::Answered { local_forwarding, event, mode }
        }
        Some(FlowStage::Running { local_forwarding, mode }) => {
            let carriage = match mode {
                Mode::Multiplexed => {
                    Carriage::Multiplexed(Box::new(Multiplexed::after(&state.up, &state.down)))
                }
                Mode::Basic => Carriage::Basic,
            };
            Stage::Running { local_forwarding, carriage }
        }
    }
}
