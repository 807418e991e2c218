/// The way in which an ``EventLoop`` waits.
///
/// A loop has a strategy of its own, and calls it from the loop's thread.
public protocol WaitStrategy: AnyObject {
  /// Waits until there is something, and lets `loop` handle it: by ``EventLoop/handleEvents(timeout:)`` or
  /// ``EventLoop/Member/process()``. ``EventLoop/run()`` calls this again and again.
  func wait(in loop: EventLoop) throws

  /// ``EventLoop/handleEvents(timeout:)`` has handled a request of `member`.
  func handled(requestOf member: EventLoop.Member)

  /// The loop is about to look at all of its descriptors, to let go of one, or to end. No system call for a request may sleep any
  /// more, until ``wait(in:)`` is called.
  func wakeUp(_ loop: EventLoop) throws

  /// The loop has let go of `member`.
  func removed(_ member: EventLoop.Member)

  /// ``EventLoop/run()`` ends. It may be called again.
  func loopEnded()
}

extension WaitStrategy {
  public func handled(requestOf member: EventLoop.Member) {}

  public func wakeUp(_ loop: EventLoop) throws {}

  public func removed(_ member: EventLoop.Member) {}

  public func loopEnded() {}
}

/// Sleeps until a descriptor is readable: epoll_wait(2).
public final class SleepWait: WaitStrategy {
  /// A strategy for one loop.
  public init() {}

  public func wait(in loop: EventLoop) throws { try loop.handleEvents(timeout: -1) }
}
