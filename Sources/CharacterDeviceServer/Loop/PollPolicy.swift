/// The way in which ``AdaptiveWait`` waits for the next request of a client that goes on at once.
public enum PollPolicy: Hashable, Sendable {
  /// Sleeps at once.
  case never
  /// Looks for so many microseconds after each request.
  case always(microseconds: Int)
  /// Tries what answers soonest, for the client and the load of now: to sleep, to keep idle CPUs awake meanwhile (which
  /// only root may), or to poll for ``longest``.
  case automatic

  /// How long ``automatic`` polls at most, in microseconds.
  public static let longest = 100
}
