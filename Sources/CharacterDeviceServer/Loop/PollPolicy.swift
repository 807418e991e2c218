/// The way in which ``AdaptiveWait`` waits for the next request of a client that goes on at once.
public enum PollPolicy: Hashable, Sendable {
  /// The loop sleeps at once.
  case never
  /// The loop polls for so many microseconds after each request.
  case always(microseconds: Int)
  /// The loop tries which way answers soonest for the present client and load: to sleep, to sleep while idle CPUs are kept awake (only
  /// root may do this), or to poll for ``longest``.
  case automatic

  /// The longest time for which ``automatic`` polls, in microseconds.
  public static let longest = 100
}
