//! One machine behind n identities. `same`: all send one object's contents; `interleave`: each sends every n-th
//! coefficient of one momentum, or every n-th chunk where the codebook has no code for 0. (`split` is n honest peers
//! with an n-th of the machine each.)

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Result;
use gauntlet_demo::Submission;

use super::super::spec::SybilForm;
use super::{Act, Behaviour, Draft, tools};

/// What the machine made for a window.
#[derive(Default)]
struct Machine {
    made: Option<(u64, Submission, f64)>,
}

/// One of its identities.
struct Identity {
    machine: Rc<RefCell<Machine>>,
    form: SybilForm,
    place: usize,
    of: usize,
}

/// Machines of `n` identities each, for `peers` identities in all.
pub(super) fn group(form: SybilForm, n: u32, peers: usize) -> Vec<Box<dyn Behaviour>> {
    let of = (n as usize).max(1);
    let machines: Vec<Rc<RefCell<Machine>>> = (0..peers.div_ceil(of)).map(|_| Rc::default()).collect();
    let identity = |i: usize| -> Box<dyn Behaviour> {
        Box::new(Identity { machine: Rc::clone(&machines[i / of]), form, place: i % of, of })
    };
    (0..peers).map(identity).collect()
}

impl Behaviour for Identity {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let mut machine = self.machine.borrow_mut();
        let fresh = machine.made.as_ref().is_none_or(|(window, ..)| *window != act.window);
        if fresh {
            // The first identity of the window to act does the work, on its own data.
            let ids = act.peer.assigned(act.world, act.window, act.budget)?;
            let (submission, loss) = act.peer.train(act.world, &ids)?;
            machine.made = Some((act.window, submission, loss));
        }
        let Some((_, made, loss)) = &machine.made else { return Ok(None) };
        let submission = match self.form {
            SybilForm::Interleave => {
                let format = &act.world.run.format;
                let whole_chunks = format.codebook().bits() == 1;
                let mut parts = tools::Parts::of(made);
                parts.keep(&tools::chunks(format), |chunk, entry| {
                    let number = if whole_chunks { chunk } else { entry };
                    number % self.of == self.place
                });
                parts.finish(format)?
            }
            SybilForm::Same | SybilForm::Split => made.clone(),
        };
        let object = tools::seal(act, &submission, act.budget)?;
        Ok(Some(Draft::new(object, Some(*loss))))
    }
}
