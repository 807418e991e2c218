/// How long a loop looks for the next request of a client before it sleeps.
public enum PollPolicy: Hashable, Sendable {
  /// Sleeps at once.
  case never
  /// So many microseconds after each request.
  case always(microseconds: Int)
  /// Tries what answers soonest, for the client and the load of now: to sleep, to poll for ``longest``, or to sleep on the
  /// client's own CPU.
  case automatic

  /// How long ``automatic`` polls at most, in microseconds.
  public static let longest = 100
}

/// How to wait for the next request of a client that goes on at once. One that comes seldom is slept for.
enum Waiting: Hashable, CaseIterable {
  /// The kernel wakes this thread, which often means another CPU: that takes longer than the rest of a request.
  case sleep
  /// On the client's CPU: the kernel switches to this thread as the client goes to sleep, and wakes nobody.
  case follow
  /// This thread stays awake, and looks again and again.
  case poll
}

/// Which way of waiting is best, found by trying each: clients, CPUs and load differ too much to know.
///
/// Requests that come one upon another are taken in bursts. The time of one has all in it that the client sees; what the
/// client does besides is in it, too, and is the same with each way.
struct WaitLearner {
  /// What to wait for the next request by.
  private(set) var waiting = Waiting.sleep

  /// The ways that are still to be tried, this one first; empty when the best is known.
  private var trials: ArraySlice<Waiting> = []
  /// Nanoseconds a request, for those that were tried.
  private var costs: [Waiting: UInt64] = [:]
  private var best = Waiting.sleep
  /// Bursts until all are tried again.
  private var burstsLeft = 0
  private var nextBursts = Self.fewestBursts
  /// Bursts in a row that took far longer than the best once took.
  private var slowBursts = 0

  private var requestsInBurst = 0
  private var burstStart: UInt64 = 0
  private var lastRequest: UInt64 = 0
  private var lastClient: Int32?
  /// All requests of the burst are of the last client.
  private var isOneClients = false

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
  ///   - client: The thread that waited for the answer; nil where nobody knows.
  ///   - now: In nanoseconds.
  ///   - available: The ways of waiting that there are.
  mutating func served(client: Int32?, at now: UInt64, available: () -> [Waiting]) {
    let isSoon = now - lastRequest <= Self.gap
    lastRequest = now
    if client == nil || client != lastClient { isOneClients = false }
    lastClient = client
    guard isSoon else {
      begin(.sleep)
      return
    }
    requestsInBurst += 1
    if requestsInBurst == Self.warmUp {
      let wanted = trials.first ?? best
      guard waiting == wanted else {
        begin(wanted)
        return
      }
      burstStart = now
      isOneClients = client != nil
    } else if requestsInBurst == Self.warmUp + Self.burst {
      learn(cost: (now - burstStart) / UInt64(Self.burst), available)
    } else if requestsInBurst > Self.warmUp, now - burstStart > costLimit {
      learn(cost: Self.excessive, available)
    }
  }

  /// Polling, this thread gave up its CPU and did not get it back for long: somebody needs it more.
  mutating func lostCPU() {
    guard waiting == .poll else { return }
    costs[.poll] = Self.excessive
    if trials.first == .poll { trials.removeFirst() }
    if trials.isEmpty { settle() }
    begin(trials.first ?? best)
  }

  private mutating func begin(_ waiting: Waiting) {
    self.waiting = waiting
    requestsInBurst = 0
  }

  /// What a trial may take at most: one that is far too slow is not gone through with.
  private var costLimit: UInt64 {
    guard !trials.isEmpty, let least = costs.values.min() else { return .max }
    return 2 * least * UInt64(Self.burst)
  }

  private static let excessive = UInt64.max / 4

  private mutating func learn(cost: UInt64, _ available: () -> [Waiting]) {
    if let tried = trials.popFirst() {
      costs[tried] = cost
      if trials.isEmpty { settle() }
    } else {
      burstsLeft -= 1
      slowBursts = cost / 2 > costs[best, default: 0] ? slowBursts + 1 : 0
      let isLost = best == .follow && !isOneClients
      // The clients or the load are others, or may be by now.
      if isLost || slowBursts == 2 || burstsLeft <= 0 {
        slowBursts = 0
        costs = [:]
        trials = available().filter { $0 != .follow || isOneClients }[...]
      }
    }
    begin(trials.first ?? best)
  }

  private mutating func settle() {
    let old = best
    // A CPU that polls does nothing else in that time.
    func price(_ waiting: Waiting) -> UInt64 {
      let cost = costs[waiting] ?? .max / 2
      return waiting == .poll ? cost + cost / 4 : cost
    }
    best = Waiting.allCases.min { price($0) < price($1) } ?? .sleep
    nextBursts = best == old ? min(2 * nextBursts, Self.mostBursts) : Self.fewestBursts
    burstsLeft = nextBursts
  }
}
