/// The way in which an ``EventLoop`` waits.
///
/// Each loop has a strategy of its own, and calls it from the loop's thread.
public protocol WaitStrategy: AnyObject {
  /// Waits until there is an event, and lets `loop` handle the event: by ``EventLoop/handleEvents(timeout:)`` or
  /// ``EventLoop/Member/process()``. ``EventLoop/run()`` calls this again and again.
  func wait(in loop: EventLoop) throws

  /// Notes that ``EventLoop/handleEvents(timeout:)`` has handled a request of `member`.
  func handled(requestOf member: EventLoop.Member)

  /// Prepares for the loop to look at all of its descriptors, to remove one, or to end. From now on, no system call for a request may
  /// sleep until ``wait(in:)`` is called.
  func wakeUp(_ loop: EventLoop) throws

  /// Notes that the loop has removed `member`.
  func removed(_ member: EventLoop.Member)

  /// Notes that ``EventLoop/run()`` ends. The loop may run again later.
  func loopEnded()
}

extension WaitStrategy {
  public func handled(requestOf member: EventLoop.Member) {}

  public func wakeUp(_ loop: EventLoop) throws {}

  public func removed(_ member: EventLoop.Member) {}

  public func loopEnded() {}
}

/// A strategy that sleeps until a descriptor is readable: epoll_wait(2).
public final class SleepWait: WaitStrategy {
  /// A strategy for one loop.
  public init() {}

  public func wait(in loop: EventLoop) throws { try loop.handleEvents(timeout: -1) }
}
