/// How long a loop looks for the next request before it sleeps.
///
/// To sleep and to be woken, often on another core, takes longer than most requests. A client that goes on at once is
/// answered several times faster by a server that is still awake; one that comes seldom only costs CPU time.
public enum PollPolicy: Hashable, Sendable {
  /// Sleeps at once.
  case never
  /// So many microseconds after each request.
  case always(microseconds: Int)
  /// As long as it has been worth it, at most ``longest``.
  case automatic

  /// What ``automatic`` comes to, in microseconds.
  public static let longest = 100
}

/// How long to poll, learned from how long requests let wait: as KVM does before it lets a vCPU sleep
/// (`kvm_vcpu_halt`, `grow_halt_poll_ns`, `shrink_halt_poll_ns` in virt/kvm/kvm_main.c).
struct PollWindow {
  private let policy: PollPolicy
  /// In nanoseconds.
  private(set) var current: UInt64
  /// Waits that are not learned from, since others need the CPU.
  private var penalty = 0
  private var nextPenalty = Self.firstPenalty
  /// Requests that were there in time since the last penalty was made smaller.
  private var hits = 0

  private static let start: UInt64 = 10_000
  private static let longest = UInt64(PollPolicy.longest) * 1000
  /// Who gives up the CPU and gets it back only after so long has met somebody who needs it.
  private static let lostCPU: UInt64 = 200_000
  private static let firstPenalty = 64
  private static let lastPenalty = 1 << 16
  private static let hitsToForgive = 1024

  init(_ policy: PollPolicy) {
    self.policy = policy
    current = if case .always(let microseconds) = policy { UInt64(microseconds) * 1000 } else { 0 }
  }

  /// A request has let wait so long, polled for or slept through.
  mutating func learn(waited: UInt64) {
    guard case .automatic = policy else { return }
    guard penalty == 0 else {
      penalty -= 1
      return
    }
    if waited <= current {
      // It was there in time: nobody else needed the CPU.
      hits += 1
      if hits == Self.hitsToForgive {
        hits = 0
        nextPenalty = max(nextPenalty / 2, Self.firstPenalty)
      }
    } else if waited > Self.longest {
      current = 0
    } else if current < Self.longest {
      current = min(max(2 * current, Self.start), Self.longest)
    }
  }

  /// To give up the CPU while polling took so long.
  mutating func learn(yielded: UInt64) {
    guard case .automatic = policy, yielded > Self.lostCPU else { return }
    current = 0
    hits = 0
    penalty = nextPenalty
    nextPenalty = min(2 * nextPenalty, Self.lastPenalty)
  }
}
