/// How to wait for the next request of a client that goes on at once. One that comes seldom is slept for.
enum Waiting: Hashable, CaseIterable {
  /// The kernel wakes this thread, which is often on another CPU, and that CPU often sleeps: that takes longer than the
  /// rest of a request.
  case sleep
  /// It wakes this thread, but no CPU sleeps (``WakeLatency``).
  case alert
  /// This thread stays awake, as well, and looks again and again.
  case poll
}

/// Which way of waiting is best, found by trying each: clients, CPUs and load differ too much to know.
///
/// Requests that come one upon another are taken in bursts. The time of one has all in it that the client sees; what the
/// client does besides is in it, too, and is the same with each way.
///
/// It is an object: Swift checks each change of a structure that an object holds, which takes longer than what is learned at most requests.
final class WaitLearner {
  /// What to wait for the next request by.
  private(set) var waiting = Waiting.sleep

  /// The ways that are still to be tried, this one first; empty when the best is known.
  private var trials: ArraySlice<Waiting> = []
  /// Nanoseconds a request, for those that were tried.
  private var costs: [Waiting: UInt64] = [:]
  private var best = Waiting.sleep
  /// Bursts until all are tried again.
  private var burstsLeft = 0
  private var nextBursts = WaitLearner.fewestBursts
  /// What the best takes of late: a trial is too short to meet all that can come in between.
  private var recentCost: UInt64 = 0

  /// How often in a row each was far too slow, and how often it is left out yet.
  private var failures: [Waiting: Int] = [:]
  private var pauses: [Waiting: Int] = [:]

  private var requestsInBurst = 0
  private var burstStart: UInt64 = 0
  private var lastRequest: UInt64 = 0
  private var hasLostCPU = false

  /// Requests of a burst that count, and those before them.
  static let burst = 64
  static let warmUp = 8
  /// Nanoseconds: two requests that are further apart are not of one burst.
  static let gap: UInt64 = 1_000_000
  static let fewestBursts = 128
  static let mostBursts = 4096

  /// A request was answered.
  ///
  /// - Parameters:
  ///   - now: In nanoseconds.
  ///   - available: The ways of waiting that there are.
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

  /// Polling, this thread gave up its CPU and did not get it back for so long, in nanoseconds, as somebody else needs it:
  /// that time is a part of the burst.
  func lostCPU(for time: UInt64) { if time > Self.gap { hasLostCPU = true } }

  private func begin(_ waiting: Waiting, at now: UInt64) {
    self.waiting = waiting
    requestsInBurst = 0
    burstStart = now
  }

  /// What a trial may take at most: one that is far too slow is not gone through with.
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
      // The clients or the load are others, or may be by now.
      if burstsLeft <= 0 || recentCost > costs[best, default: 0] / 2 * 3 {
        costs = [best: recentCost]
        trials = available().filter { $0 != best && !isPausing($0) }[...]
        if trials.isEmpty { settle() }
      }
    }
    begin(trials.first ?? best, at: now)
  }

  /// What was far too slow is left out the next time, and for longer each time: it may be what disturbs the others, as who
  /// polls beside processes that need the CPU is moved away from its client.
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
      // It takes power, and has to be worth that.
      case .alert: cost + cost / 8
      // It takes a CPU, too.
      case .poll: cost + cost / 4
      }
    }
    best = Waiting.allCases.min { price($0) < price($1) } ?? .sleep
    recentCost = costs[best] ?? 0
    nextBursts = best == old ? min(2 * nextBursts, Self.mostBursts) : Self.fewestBursts
    burstsLeft = nextBursts
  }
}
