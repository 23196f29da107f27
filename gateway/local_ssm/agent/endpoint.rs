//! What a session is connected to at the target: a process, or ports.

use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use data_channel::{Flag, PayloadType, Size};
use tokio::io::ReadBuf;

use super::basic::Basic;
use super::destination::Destination;
use super::mode::Mode;
use super::mux::Mux;
use crate::local_ssm::document::{PortWork, Work};
use crate::local_ssm::input::Input;
use crate::local_ssm::process::Process;
use crate::local_ssm::sessions::Status;
use crate::local_ssm::settings::LocalTarget;

/// Most bytes of one read; a terminal gives no more at a time.
const READ: usize = 4_096;

/// The far end of a session's bytes.
pub(super) enum Endpoint {
    /// Not started yet, or gone.
    Nothing,
    /// A host is looked up, or the first connection dialled.
    Starting(Starting),
    /// A shell or command, and what waits to be typed.
    Process(Box<Process>, Input),
    /// One TCP connection at a time.
    Basic(Basic),
    /// Many TCP connections.
    Mux(Box<Mux>),
}

/// The endpoint in a moment, or why there is none.
type Starting = Pin<Box<dyn Future<Output = Result<Endpoint, String>> + Send>>;

/// What happened at an endpoint.
pub(super) enum Happened {
    /// It has something for the client.
    Output(PayloadType, Vec<u8>),
    /// It got further; there is nothing to tell.
    Moved,
    /// The process wrote its last.
    ProcessEnd,
    /// The session is over.
    Over(Status, String),
}

impl Endpoint {
    /// Starts a process, with what is typed into it first.
    pub(super) fn process(work: &Work, target: &LocalTarget) -> Result<Self, String> {
        let process =
            Process::start(work, target).map_err(|error| format!("Unable to start command: {error}"))?;
        let mut input = Input::default();
        if let Work::Shell { profile } = work
            && !profile.trim().is_empty()
        {
            input.push(Bytes::from(format!("{profile}\n")));
        }
        Ok(Self::Process(Box::new(process), input))
    }

    /// Starts to connect to ports; keep-alives this often if they are on.
    pub(super) fn port(work: PortWork, target: Arc<LocalTarget>, mode: Mode, every: Duration) -> Self {
        Self::Starting(Box::pin(async move {
            let destination = Destination::resolve(&work, &target).await?;
            match mode {
                Mode::Mux { keep_alive } => {
                    Ok(Self::Mux(Box::new(Mux::new(destination, keep_alive.then_some(every)))))
                }
                Mode::Basic => {
                    let dialled = destination.dial().await;
                    let connection =
                        dialled.map_err(|error| format!("Unable to connect to specified port: {error}"))?;
                    Ok(Self::Basic(Basic::new(destination, work.forwards, connection)))
                }
            }
        }))
    }

    /// Whether it takes input now; if not the client sends it again.
    pub(super) fn has_room(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Starting(_) => false,
            Self::Process(_, input) => input.has_room(),
            Self::Basic(basic) => basic.has_room(),
            Self::Mux(mux) => mux.has_room(),
        }
    }

    /// Takes bytes of the client.
    pub(super) fn take(&mut self, payload: Bytes) {
        match self {
            Self::Nothing | Self::Starting(_) => {}
            Self::Process(process, input) if process.has_terminal() => input.push(payload),
            Self::Process(process, input) => input.interrupt(process, &payload),
            Self::Basic(basic) => basic.take(payload),
            Self::Mux(mux) => mux.take(&payload),
        }
    }

    /// Takes a flag of the client; whether the session ends with it.
    pub(super) fn flag(&mut self, flag: Flag) -> bool {
        match self {
            Self::Basic(basic) => basic.flag(flag),
            Self::Mux(_) => return flag == Flag::TerminateSession,
            _ => {}
        }
        false
    }

    /// Sets the size of its terminal, if it has one.
    pub(super) fn resize(&self, size: Size) {
        if let Self::Process(process, _) = self {
            process.resize(size);
        }
    }

    /// The exit code of a process that has ended.
    pub(super) fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Process(process, _) => process.exit_code(),
            _ => None,
        }
    }

    /// Moves bytes both ways until something happens.
    ///
    /// May be dropped and called again; reads only if output is wanted.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, wants_output: bool) -> Poll<Happened> {
        match self {
            Self::Nothing => Poll::Pending,
            Self::Starting(starting) => starting.as_mut().poll(cx).map(|started| match started {
                Ok(endpoint) => {
                    *self = endpoint;
                    Happened::Moved
                }
                Err(why) => Happened::Over(Status::Failed, why),
            }),
            Self::Process(process, input) => poll_process(cx, process, input, wants_output),
            Self::Basic(basic) => basic.poll(cx, wants_output),
            Self::Mux(mux) => mux.poll(cx, wants_output),
        }
    }

    /// Ends it: a process with all it left, connections by closing them.
    pub(super) async fn end(self) {
        if let Self::Process(process, _) = self {
            process.end().await;
        }
    }

    /// Closes connections; a process stays until it is ended.
    pub(super) fn disconnect(&mut self) {
        if !matches!(self, Self::Process(..)) {
            *self = Self::Nothing;
        }
    }
}

fn poll_process(
    cx: &mut Context<'_>,
    process: &mut Process,
    input: &mut Input,
    wants_output: bool,
) -> Poll<Happened> {
    if !input.is_empty()
        && let Poll::Ready(typed) = input.poll_type(cx, process)
    {
        if typed.is_err() {
            input.clear();
        }
        return Poll::Ready(Happened::Moved);
    }
    if !wants_output {
        return Poll::Pending;
    }
    let mut room = [const { MaybeUninit::uninit() }; READ];
    let mut into = ReadBuf::uninit(&mut room);
    process.poll_output(cx, &mut into).map(|kind| match kind {
        Some(kind) => Happened::Output(kind, into.filled().to_vec()),
        None => Happened::ProcessEnd,
    })
}
