//! The sticky assignor: an assignment as even as the members' topics permit, with as few moved partitions as possible.
//! A member's *load* is the number of its partitions.
//!
//! The loads are even when no chain of moves leads from a member to one whose load is smaller by two or more. So
//! `even_out` searches for such chains breadth first, from the member with the highest load, until there is none
//! (augmenting paths: Ahuja, Magnanti, Orlin, *Network Flows*, 1993, chapter 9). With few members, the number of moved
//! partitions is then minimized by canceling cycles of negative cost (chapter 9.6 of the same book).

use super::assignment::{Assignment, Candidate, PartitionKey, ReadersByTopic, partitions};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The greatest number of members, not all of which read the same topics, for which an assignment with the fewest moves
/// is searched for. The cost of each step of the search grows with the cube of that number.
const FEW: usize = 16;

/// A sticky assignment that is being computed. Members and partitions are referred to by their index.
pub(super) struct Plan<'a> {
    members: &'a [&'a Candidate],
    readers: ReadersByTopic,
    partitions: Vec<PartitionKey>,
    /// For each partition, the member that had it before; `None` if there was none, or if that member has left or does
    /// not read the topic any more.
    before: Vec<Option<usize>>,
    owner: Vec<Option<usize>>,
    load: Vec<usize>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(members: &'a [&'a Candidate], topics: &BTreeMap<u32, u32>, before: &Assignment) -> Self {
        let partitions: Vec<_> = partitions(topics).collect();
        let index: HashMap<_, _> = members.iter().enumerate().map(|(index, member)| (member.id, index)).collect();
        let had = |partition: &PartitionKey| {
            let had = *index.get(before.get(partition)?)?;
            members[had].topics.contains(&partition.topic).then_some(had)
        };
        let before: Vec<_> = partitions.iter().map(had).collect();
        let mut load = vec![0; members.len()];
        before.iter().flatten().for_each(|&member| load[member] += 1);
        Self { members, readers: ReadersByTopic::new(members), partitions, owner: before.clone(), before, load }
    }

    pub(super) fn settled(mut self) -> Assignment {
        if let [class] = &self.readers.classes[..] {
            self.shed_to_even_shares(class.len());
            self.hand_out_the_rest();
        } else {
            self.hand_out_the_rest();
            self.even_out();
            while self.members.len() <= FEW && self.has_moved() && self.improve() {}
        }
        let owned = self.partitions.iter().zip(&self.owner);
        owned.filter_map(|(&partition, &owner)| Some((partition, self.members[owner?].id))).collect()
    }

    fn has_moved(&self) -> bool {
        self.before.iter().zip(&self.owner).any(|(before, owner)| before.is_some() && before != owner)
    }

    /// If all members read the same topics: takes from each member the partitions above an even share. If the shares
    /// cannot be equal, the larger ones, which have one partition more, go to the members with the highest loads, so
    /// that as many partitions as possible stay.
    fn shed_to_even_shares(&mut self, members: usize) {
        let is_read = |partition: &&PartitionKey| !self.readers.of(partition.topic).is_empty();
        let total = self.partitions.iter().filter(is_read).count();
        let (share, larger) = (total / members, total % members);
        let mut by_load: Vec<usize> = (0..members).collect();
        by_load.sort_by_key(|&member| Reverse(self.load[member]));
        let mut share_of = vec![share; members];
        by_load[..larger].iter().for_each(|&member| share_of[member] += 1);
        for owner in self.owner.iter_mut().rev() {
            if let Some(member) = *owner
                && self.load[member] > share_of[member]
            {
                self.load[member] -= 1;
                *owner = None;
            }
        }
    }

    /// Gives each partition without an owner to the member with the lowest load of those that read its topic.
    fn hand_out_the_rest(&mut self) {
        let by_load = |class: &Vec<usize>| class.iter().map(|&member| (self.load[member], member)).collect();
        let mut by_load: Vec<BTreeSet<(usize, usize)>> = self.readers.classes.iter().map(by_load).collect();
        for (partition, owner) in self.partitions.iter().zip(&mut self.owner) {
            if owner.is_none() {
                let classes = self.readers.of(partition.topic).iter();
                let least = classes.filter_map(|&class| Some((*by_load[class].first()?, class))).min();
                let Some(((load, member), class)) = least else { continue };
                *owner = Some(member);
                by_load[class].remove(&(load, member));
                by_load[class].insert((load + 1, member));
                self.load[member] = load + 1;
            }
        }
    }

    /// Moves partitions from the member with the highest load to others, through intermediate members if needed, until
    /// no move makes the loads more even.
    ///
    /// A member is settled if it reaches no member whose load is smaller by two or more. A settled member leaves
    /// `open`. All members that it reaches are then settled too: their loads are at least its own minus one, and they
    /// reach only members that it reaches as well.
    fn even_out(&mut self) {
        let mut search = Search::new(self);
        let mut open: BTreeSet<(usize, usize)> =
            self.load.iter().enumerate().map(|(member, &load)| (load, member)).collect();
        while let (Some(&(least, _)), Some(&(most, from))) = (open.first(), open.last())
            && most > least + 1
        {
            match search.reach(self, from) {
                Some(to) => {
                    open.remove(&(most, from));
                    open.insert((most - 1, from));
                    // `to` is in `open`, because the load of each settled member is at least that of `from` minus one.
                    // Its load grows by one.
                    open.remove(&(self.load[to], to));
                    open.insert((self.load[to] + 1, to));
                    search.hand_on(self, from, to);
                }
                None => search.reached.iter().for_each(|&member| _ = open.remove(&(self.load[member], member))),
            }
        }
    }

    /// Makes one step towards the assignment that is most even and, of these, has the fewest moves. Returns false if
    /// the assignment is that one already.
    ///
    /// Members read different topics, so that evening out may need a chain: one member gives a partition to a second,
    /// which gives another partition to a third. This is a minimum-cost flow. The k-th partition of a member costs k
    /// times `even`, so the cheapest assignment is the most even one; a partition that has moved costs 1 more. A step
    /// applies a cycle of moves with negative cost; if there is none, no assignment is cheaper.
    fn improve(&mut self) -> bool {
        let count = self.members.len();
        // The nodes are the members and one pool. A cycle through the pool changes two loads: its edge from the pool
        // takes one partition off a member's load, its edge to the pool adds one to another member's.
        let (pool, even) = (count, self.partitions.len() as i64 + 1);
        let mut cheapest = vec![vec![None::<(i64, Option<usize>)>; count + 1]; count + 1];
        for (partition, &owner) in self.owner.iter().enumerate() {
            let Some(from) = owner else { continue };
            let cost = |member| i64::from(self.before[partition].is_some_and(|before| before != member));
            for to in (0..count).filter(|&to| to != from) {
                let price = cost(to) - cost(from);
                let better = cheapest[from][to].is_none_or(|(known, _)| price < known);
                if better && self.members[to].topics.contains(&self.partitions[partition].topic) {
                    cheapest[from][to] = Some((price, Some(partition)));
                }
            }
        }
        for (member, &load) in self.load.iter().enumerate() {
            cheapest[member][pool] = Some((even * (load as i64 + 1), None));
            cheapest[pool][member] = (load > 0).then_some((-even * load as i64, None));
        }
        // Bellman-Ford, with as many rounds as there are nodes: a node that still gets cheaper in the last round is
        // reachable from a negative cycle.
        let (mut distance, mut via) = (vec![0; count + 1], vec![None; count + 1]);
        let mut on_circle = None;
        for _ in 0..=count {
            on_circle = None;
            for from in 0..=count {
                for to in 0..=count {
                    if let Some((price, _)) = cheapest[from][to]
                        && distance[from] + price < distance[to]
                    {
                        distance[to] = distance[from] + price;
                        via[to] = Some(from);
                        on_circle = Some(to);
                    }
                }
            }
        }
        let Some(mut node) = on_circle else { return false };
        // After as many steps back as there are nodes, `node` is on the cycle itself. The loop below goes once around
        // the cycle.
        for _ in 0..=count {
            node = via[node].unwrap_or(node);
        }
        let last = node;
        loop {
            let Some(from) = via[node] else { return false };
            if let Some((_, Some(partition))) = cheapest[from][node] {
                self.owner[partition] = Some(node);
                self.load[from] -= 1;
                self.load[node] += 1;
            }
            node = from;
            if node == last {
                return true;
            }
        }
    }
}

/// A breadth-first search through the members: from each member to all readers of the topics of its partitions.
struct Search {
    /// The partitions of each member.
    owned: Vec<Vec<usize>>,
    /// The members that the last search has reached, in the order in which it reached them.
    reached: Vec<usize>,
    /// For each reached member, the partition that would move to it; `None` for the others.
    via: Vec<Option<usize>>,
    /// For each class of members, the number of the last search that has seen it; `topic_seen` has that for each topic.
    class_seen: Vec<u32>,
    topic_seen: HashMap<u32, u32>,
    search: u32,
}

impl Search {
    fn new(plan: &Plan<'_>) -> Self {
        let mut owned = vec![Vec::new(); plan.members.len()];
        let owners = plan.owner.iter().enumerate().filter_map(|(partition, owner)| Some((partition, (*owner)?)));
        owners.for_each(|(partition, owner)| owned[owner].push(partition));
        let (via, class_seen) = (vec![None; plan.members.len()], vec![0; plan.readers.classes.len()]);
        Self { owned, reached: Vec::new(), via, class_seen, topic_seen: HashMap::new(), search: 0 }
    }

    /// The member with the lowest load that a chain of moves from `from` reaches; `None` if its load is not smaller by
    /// two or more.
    fn reach(&mut self, plan: &Plan<'_>, from: usize) -> Option<usize> {
        self.search += 1;
        self.reached.drain(..).for_each(|member| self.via[member] = None);
        self.reached.push(from);
        let mut best: Option<usize> = None;
        let mut next = 0;
        while let Some(&member) = self.reached.get(next) {
            next += 1;
            // Partitions that have moved already come first: moving them again costs nothing.
            let has_moved = |partition: &&usize| plan.before[**partition] != Some(member);
            let owned = &self.owned[member];
            let (first, then) = (owned.iter().filter(has_moved), owned.iter().filter(|it| !has_moved(it)));
            for &partition in first.chain(then) {
                let topic = plan.partitions[partition].topic;
                if self.topic_seen.insert(topic, self.search) == Some(self.search) {
                    continue;
                }
                for &class in plan.readers.of(topic) {
                    if std::mem::replace(&mut self.class_seen[class], self.search) == self.search {
                        continue;
                    }
                    for &reader in &plan.readers.classes[class] {
                        if reader == from || self.via[reader].is_some() {
                            continue;
                        }
                        self.via[reader] = Some(partition);
                        self.reached.push(reader);
                        if best.is_none_or(|best| plan.load[reader] < plan.load[best]) {
                            best = Some(reader);
                        }
                    }
                }
            }
        }
        best.filter(|best| plan.load[*best] + 2 <= plan.load[from])
    }

    /// Moves one partition along each step of the path from `from` to `to` that [`reach`](Self::reach) has found.
    fn hand_on(&mut self, plan: &mut Plan<'_>, from: usize, to: usize) {
        let mut member = to;
        while member != from
            && let Some(partition) = self.via[member]
            && let Some(owner) = plan.owner[partition].replace(member)
        {
            self.owned[owner].retain(|owned| *owned != partition);
            self.owned[member].push(partition);
            member = owner;
        }
        plan.load[from] -= 1;
        plan.load[to] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Generates `members` members, each of which reads a random choice of topics. In the previous assignment, each
    /// partition is with the first member that may have it.
    fn crowd(members: u64, topics: u32, seed: u64) -> (Vec<Candidate>, BTreeMap<u32, u32>, Assignment) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut choice = |id| {
            let topics = (0..topics).filter(|_| random.u8(..4) == 0).collect();
            Candidate { id, name: None, topics: Arc::new(topics) }
        };
        let members: Vec<_> = (1..=members).map(&mut choice).collect();
        let topics: BTreeMap<_, _> = (0..topics).map(|topic| (topic, 1 + topic % 5)).collect();
        let before = partitions(&topics).filter_map(|partition| {
            let first = members.iter().find(|member| member.topics.contains(&partition.topic))?;
            Some((partition, first.id))
        });
        let before = before.collect();
        (members, topics, before)
    }

    #[test]
    fn chains_even_out_as_well_as_the_cheapest_flow() {
        for seed in 0..12 {
            let (members, topics, before) = crowd(6 + seed % 5, 9, seed);
            let members: Vec<&Candidate> = members.iter().collect();
            let squares = |plan: &Plan<'_>| plan.load.iter().map(|load| load * load).sum::<usize>();
            let mut chains = Plan::new(&members, &topics, &before);
            chains.hand_out_the_rest();
            chains.even_out();
            let mut flow = Plan::new(&members, &topics, &before);
            flow.hand_out_the_rest();
            while flow.improve() {}
            assert_eq!(squares(&chains), squares(&flow), "seed {seed}");
        }
    }

    #[test]
    fn a_crowd_is_evened_out_and_nothing_more_is_moved_then() {
        let (members, topics, before) = crowd(200, 300, 7);
        let members: Vec<&Candidate> = members.iter().collect();
        let assign = |before: &Assignment| Plan::new(&members, &topics, before).settled();
        let after = assign(&before);
        let mut loads: HashMap<u64, usize> = HashMap::new();
        after.values().for_each(|owner| *loads.entry(*owner).or_default() += 1);
        // 900 partitions among 200 members, each of which reads a quarter of the topics.
        assert!(loads.len() == 200 && loads.values().all(|load| (4..=5).contains(load)), "{loads:?}");
        assert_eq!(assign(&after), after);
    }
}
