//! Metrics of consumer groups.

/// The metrics of a group that has members, or had some since the engine was built: see
/// [`GroupDescription`](crate::group::GroupDescription).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct GroupMetrics {
    /// The group's name.
    pub name: String,
    /// The state of the assignment of partitions to members: `without members`, `rebalancing` or `stable`.
    pub state: String,
    /// The group's epoch, which increases with each change of members or topics.
    pub epoch: u64,
    /// How many published events of all partitions the group has not committed.
    pub lag: u64,
    /// How many events managed members have skipped because their handler failed on them.
    pub skipped: u64,
    /// The number of partitions that the group reads.
    pub partitions: u64,
    /// How many of these partitions no member has.
    pub unowned: u64,
    /// The members, in the order of joining.
    pub members: Vec<GroupMemberMetrics>,
}

/// The metrics of one member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct GroupMemberMetrics {
    /// The member's number. A group never gives a number to two members.
    pub id: u64,
    /// The member's name; `None` if it has none.
    pub name: Option<String>,
    /// True if the member has left and its partitions are still reserved for its return.
    pub away: bool,
    /// The number of partitions that the member has or is about to get.
    pub partitions: u64,
    /// How many published events of these partitions the group has not committed.
    pub lag: u64,
}
