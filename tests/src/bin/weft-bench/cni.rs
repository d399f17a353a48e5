//! `weft-cni` against the kernel's work alone (`weft-wire`) and against Debian's chain of plugins.
//!
//! Each way to make a pod has a node of its own, so that none walks another's rules. The pods' namespaces are made once
//! and used by all in turn: the kernel removes namespaces in the background, under the lock that every measured call needs.

mod calls;
mod grouped;
mod lane;
mod pod;
mod report;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use nix::sys::resource::{UsageWho, getrusage};
use weft_netlink::{Netns, NetnsGuard};

pub(crate) use self::report::Report;
use self::{
    grouped::Removal,
    lane::Lane,
    pod::Pod,
    report::{Batch, Round, Row},
};

/// How many pods come or go at a time.
const AT_A_TIME: usize = 8;

/// Builds the nodes and measures.
pub(crate) fn measure(quick: bool) -> Result<Report> {
    let (rounds, one_by_one, together) = if quick { (1, 3, AT_A_TIME) } else { (9, 12, 4 * AT_A_TIME) };
    let directory = tempfile::tempdir()?;
    let pods = (0..one_by_one.max(together)).map(Pod::new).collect::<Result<Vec<_>>>()?;
    let lanes = lane::all(directory.path())?;
    let execs = lanes.iter().map(|lane| lane.warm_up(&pods[0])).collect::<Result<Vec<_>>>()?;
    println!(
        "{rounds} rounds of {one_by_one} pods one by one and {together} pods {AT_A_TIME} at a time; \
         load average before: {}",
        load_average()?
    );
    let mut samples: Vec<Vec<Round>> = lanes.iter().map(|_| Vec::new()).collect();
    let mut removals = Vec::new();
    for round in 0..rounds {
        // Whatever drifts on the machine favours each as often as the others.
        for position in 0..lanes.len() {
            let lane = (position + round) % lanes.len();
            samples[lane].push(measure_lane(&lanes[lane], &pods[..one_by_one], &pods[..together])?);
        }
        removals.push(grouped::measure(&lanes[lane::WEFT], &pods[..AT_A_TIME])?);
    }
    let row =
        |(index, lane): (usize, &Lane)| Row::of(lane.name, execs[index], &samples[index], &samples[lane.reference]);
    let rows: Vec<Row> = lanes.iter().enumerate().map(row).collect();
    Ok(Report::new(rows, Removal::median(&removals), &samples))
}

fn measure_lane(lane: &Lane, one_by_one: &[Pod], together: &[Pod]) -> Result<Round> {
    let add = |pod: &Pod| lane.add(pod);
    let del = |pod: &Pod| lane.del(pod);
    Ok(Round {
        add: batch(&lane.node, one_by_one, 1, &add)?,
        del: batch(&lane.node, one_by_one, 1, &del)?,
        add_together: batch(&lane.node, together, AT_A_TIME, &add)?,
        del_together: batch(&lane.node, together, AT_A_TIME, &del)?,
    })
}

/// One call for each pod, by so many threads.
fn batch(
    node: &Netns,
    pods: &[Pod],
    threads: usize,
    call: &(dyn Fn(&Pod) -> Result<Duration> + Sync),
) -> Result<Batch> {
    let (next, times) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> Result<()> {
        let _on_node = NetnsGuard::enter(node)?;
        while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
            let took = call(pod)?;
            times.lock().map_err(|_| anyhow!("another thread failed"))?.push(took.as_secs_f64() * 1000.0);
        }
        Ok(())
    };
    let (cpu, start) = (cpu_of_children()?, Instant::now());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a thread failed"))?)
    })?;
    let wall = start.elapsed();
    let cpu = cpu_of_children()? - cpu;
    let times = times.into_inner().map_err(|_| anyhow!("a thread failed"))?;
    Ok(Batch { rate: pods.len() as f64 / wall.as_secs_f64(), cpu_ms: cpu * 1000.0 / pods.len() as f64, times })
}

/// Processor time in seconds of all programs that were started and have ended, with those they started.
fn cpu_of_children() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn load_average() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}
