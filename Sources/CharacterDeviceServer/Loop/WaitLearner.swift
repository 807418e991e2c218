/// A way to wait for the next request of a client that goes on at once. If requests are rare, the thread always sleeps.
enum Waiting: Hashable, CaseIterable {
  /// The thread sleeps until the kernel wakes it. The thread is often on another CPU than the client, and this CPU often sleeps, too: to
  /// wake both takes longer than the rest of a request.
  case sleep
  /// The thread sleeps until the kernel wakes it, but no CPU sleeps (``WakeLatency``).
  case alert
  /// The thread stays awake and looks for a request again and again.
  case poll
}

/// The search for the best way of waiting, which tries each way: clients, CPUs and load differ too much for a fixed choice.
///
/// The learner measures requests that follow each other at once, in bursts. The time of a burst includes all delays that the client
/// sees. It also includes the client's own work, which is the same with each way.
///
/// The learner is an object. A structure in an object would be slower, as Swift checks each change of such a structure for exclusive
/// access.
final class WaitLearner {
  /// The way to wait for the next request.
  private(set) var waiting = Waiting.sleep

  /// The ways that are not tried yet, beginning with the present one; empty when the best way is known.
  private var trials: ArraySlice<Waiting> = []
  /// The time of a request in nanoseconds, for each way that was tried.
  private var costs: [Waiting: UInt64] = [:]
  private var best = Waiting.sleep
  /// The number of bursts until all ways are tried again.
  private var burstsLeft = 0
  private var nextBursts = WaitLearner.fewestBursts
  /// The time of a request with the best way in recent bursts. A trial alone is too short to include all disturbances.
  private var recentCost: UInt64 = 0

  /// The number of trials in a row in which each way was far too slow.
  private var failures: [Waiting: Int] = [:]
  /// The number of trials in which each way is still left out.
  private var pauses: [Waiting: Int] = [:]

  private var requestsInBurst = 0
  private var burstStart: UInt64 = 0
  private var lastRequest: UInt64 = 0
  private var hasLostCPU = false

  /// The number of requests in a burst that are measured.
  static let burst = 64
  /// The number of requests in a burst before the measured ones.
  static let warmUp = 8
  /// The longest time between two requests of one burst, in nanoseconds.
  static let gap: UInt64 = 1_000_000
  static let fewestBursts = 128
  static let mostBursts = 4096

  /// Notes that a request was answered.
  ///
  /// - Parameters:
  ///   - now: The time in nanoseconds.
  ///   - available: The ways of waiting that are possible.
  func served(at now: UInt64, available: () -> [Waiting]) {
    let isSoon = now - lastRequest <= Self.gap || hasLostCPU
    lastRequest = now
    hasLostCPU = false
    guard isSoon else {
      begin(.sleep, at: now)
      return
    }
    requestsInBurst += 1
    let wanted = trials.first ?? best
    if requestsInBurst == Self.warmUp, waiting != wanted {
      begin(wanted, at: now)
    } else if waiting == wanted, now - burstStart > costLimit {
      learn(cost: Self.excessive, at: now, available)
    } else if requestsInBurst == Self.warmUp {
      burstStart = now
    } else if requestsInBurst == Self.warmUp + Self.burst {
      learn(cost: (now - burstStart) / UInt64(Self.burst), at: now, available)
    }
  }

  /// Notes that this thread gave up its CPU while it polled, and did not get the CPU back for a time in nanoseconds, because another thread
  /// needed it. The time is a part of the burst.
  func lostCPU(for time: UInt64) { if time > Self.gap { hasLostCPU = true } }

  private func begin(_ waiting: Waiting, at now: UInt64) {
    self.waiting = waiting
    requestsInBurst = 0
    burstStart = now
  }

  /// The longest time of a trial. A trial that is far too slow ends early.
  private var costLimit: UInt64 {
    guard !trials.isEmpty, let least = costs.values.min() else { return .max }
    return 2 * least * UInt64(Self.burst)
  }

  private static let excessive = UInt64.max / 4

  private func learn(cost: UInt64, at now: UInt64, _ available: () -> [Waiting]) {
    if let tried = trials.popFirst() {
      costs[tried] = cost
      failures[tried] = cost == Self.excessive ? min(failures[tried, default: 0] + 1, 6) : 0
      pauses[tried] = 1 << failures[tried, default: 0] - 1
      if trials.isEmpty { settle() }
    } else {
      burstsLeft -= 1
      recentCost = recentCost == 0 ? cost : (7 * recentCost + min(cost, 100 * recentCost)) / 8
      // The clients or the load have changed, or may have changed.
      if burstsLeft <= 0 || recentCost > costs[best, default: 0] / 2 * 3 {
        costs = [best: recentCost]
        trials = available().filter { $0 != best && !isPausing($0) }[...]
        if trials.isEmpty { settle() }
      }
    }
    begin(trials.first ?? best, at: now)
  }

  /// Whether a way is left out of the present trial. A way that was far too slow is left out, and for longer each time. Such a way may
  /// disturb the other ways: the kernel moves a thread that polls beside processes that need the CPU away from its client.
  private func isPausing(_ waiting: Waiting) -> Bool {
    guard let pause = pauses[waiting], pause > 0 else { return false }
    pauses[waiting] = pause - 1
    return true
  }

  private func settle() {
    let old = best
    func price(_ waiting: Waiting) -> UInt64 {
      let cost = costs[waiting] ?? .max / 2
      return switch waiting {
      case .sleep: cost
      // This way takes power, so it has to be faster by an eighth.
      case .alert: cost + cost / 8
      // This way takes a CPU as well, so it has to be faster by a quarter.
      case .poll: cost + cost / 4
      }
    }
    best = Waiting.allCases.min { price($0) < price($1) } ?? .sleep
    recentCost = costs[best] ?? 0
    nextBursts = best == old ? min(2 * nextBursts, Self.mostBursts) : Self.fewestBursts
    burstsLeft = nextBursts
  }
}
