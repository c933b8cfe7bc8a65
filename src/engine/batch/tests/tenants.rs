//! What tenants notice of each other.

use super::*;

#[test]
fn tenants_take_turns_and_the_greedy_one_gives_way() {
    let now = Instant::now();
    let mut batcher = Batcher::new(Policy::new(2, 6));
    let of = |tenant, id| Fake { tenant, ..job(id, now) };
    (0..6).for_each(|id| drop(batcher.push(of(1, id), now).unwrap()));
    assert!(matches!(batcher.push(of(1, 6), now), Err(Refused::Full { .. })));
    let evicted = batcher.push(of(2, 10), now).unwrap().evicted;
    assert_eq!(ids(&evicted), [5], "the last of who has the most");
    batcher.push(of(2, 11), now).unwrap();
    let order: Vec<_> = (0..3).map(|_| run(&mut batcher, now)).collect();
    assert_eq!(order, [[0, 10], [1, 11], [2, 3]]);
}

#[test]
fn batches_are_kept_short_for_others_by_who_asks_for_much_or_has_much_waiting() {
    let now = Instant::now();
    // What each asks for in a second, in seconds of the model's time, and how much of it waits.
    let rows_beside_others = |tenants: &[(f64, usize)]| {
        let mut batcher = taught(Policy::new(8, 100), now);
        for (at, (tenant, (rate, _))) in (0..500).flat_map(|at| (0..).zip(tenants).map(move |tenant| (at, tenant))) {
            batcher.demands.asked(tenant, rate / 1000.0, now + ms(at));
        }
        let now = now + ms(500);
        let tenants = (0..).zip(tenants).flat_map(|(tenant, (_, jobs))| std::iter::repeat_n(tenant, *jobs));
        for (id, tenant) in tenants.enumerate() {
            batcher.push(Fake { tenant, ..job(id, now) }, now).unwrap();
        }
        run(&mut batcher, now).len()
    };
    assert_eq!(rows_beside_others(&[(5.0, 12), (0.3, 1)]), 4);
    assert_eq!(rows_beside_others(&[(5.0, 12)]), 8, "there are no others");
    assert_eq!(rows_beside_others(&[(5.0, 4), (0.3, 1)]), 4, "he will have more soon");
    assert_eq!(rows_beside_others(&[(0.6, 12), (0.3, 1)]), 4, "he has much for the moment");
    assert_eq!(rows_beside_others(&[(0.6, 6), (0.3, 1)]), 7, "there is enough for both");
    assert_eq!(rows_beside_others(&[(0.6, 4), (0.5, 6), (0.4, 2)]), 8, "they want about the same");
}

#[test]
fn large_jobs_are_cut_for_others_who_want_less() {
    let now = Instant::now();
    let most = |waiting: &[(Tenant, usize)], tenant, rows, later| {
        let mut batcher = taught(Policy::new(8, 100), now);
        for (id, (tenant, rows)) in waiting.iter().enumerate() {
            batcher.push(Fake { tenant: *tenant, rows: *rows, ..job(id, now) }, now).unwrap();
        }
        batcher.most_at_once(tenant, 1, rows, now + ms(later))
    };
    assert_eq!(most(&[(2, 1)], 1, 8, 0), 4);
    assert_eq!(most(&[(2, 1)], 1, 3, 0), 3);
    assert_eq!(most(&[(2, 8), (2, 8)], 1, 8, 0), 8, "who waits wants more");
    assert_eq!(most(&[(1, 8)], 1, 8, 0), 8, "nobody else is there");
    let mut batcher = taught(Policy::new(8, 100), now);
    batcher.push(Fake { tenant: 2, ..job(0, now) }, now).unwrap();
    run(&mut batcher, now);
    assert_eq!([500, 1500].map(|later| batcher.most_at_once(1, 1, 8, now + ms(later))), [4, 8], "he was there lately");
}
