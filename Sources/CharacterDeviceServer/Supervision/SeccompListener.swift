import CLinux
import Glibc
import SystemPackage

/// A system call of another process, which waits for its answer: `struct seccomp_notif`.
struct Notification {
  let id: UInt64
  /// The thread that makes the call.
  let thread: pid_t
  let number: Int32
  private let words: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64)

  fileprivate init(_ received: clinux_notification) {
    id = received.id
    thread = received.thread
    number = received.number
    words = received.arguments
  }

  /// An argument of the call, as the register has it.
  func argument(_ index: Int) -> UInt64 {
    switch index {
    case 0: words.0
    case 1: words.1
    case 2: words.2
    case 3: words.3
    case 4: words.4
    default: words.5
    }
  }

  /// An argument that is an `int`.
  func int(_ index: Int) -> Int32 { Int32(truncatingIfNeeded: argument(index)) }

  /// An argument that is a `long`, an `off_t` or a `size_t`.
  func long(_ index: Int) -> Int { Int(truncatingIfNeeded: argument(index)) }
}

/// The listener of a filter of system calls: seccomp_unotify(2).
final class SeccompListener {
  let descriptor: FileDescriptor

  init(_ descriptor: FileDescriptor) {
    self.descriptor = descriptor
    clinux_wake_synchronously(descriptor.rawValue)
  }

  deinit { close() }

  private var isOpen = true

  /// Closes the listener. Calls that wait, and later ones, fail with `ENOSYS`.
  func close() {
    if isOpen { try? descriptor.close() }
    isOpen = false
  }

  /// Receives a call. Use this only if the descriptor is readable; otherwise it waits.
  ///
  /// - Returns: Nil if the process that made the call has been killed meanwhile.
  func receive() throws(Errno) -> Notification? {
    var received = clinux_notification()
    guard clinux_receive_notification(descriptor.rawValue, &received) == 0 else {
      let error = Errno.current
      if error == .noSuchFileOrDirectory || error == .interrupted { return nil }
      throw error
    }
    return Notification(received)
  }

  /// Whether the process still waits for the answer. Use this after each access to the process's memory and files in /proc, whose number
  /// can be that of another process by then.
  func isValid(_ notification: Notification) -> Bool {
    clinux_notification_is_valid(descriptor.rawValue, notification.id) != 0
  }

  /// Lets the call return a value.
  ///
  /// - Returns: False if the process does not wait for the answer any more.
  @discardableResult
  func answer(_ notification: Notification, _ value: Int) -> Bool {
    clinux_answer_notification(descriptor.rawValue, notification.id, Int64(value), 0) == 0
  }

  /// Fails the call.
  @discardableResult
  func fail(_ notification: Notification, _ error: Errno) -> Bool {
    clinux_answer_notification(descriptor.rawValue, notification.id, 0, error.rawValue) == 0
  }

  /// Lets the kernel execute the call. This gives the process no rights that it does not have.
  func letKernelAnswer(_ notification: Notification) {
    _ = clinux_continue_notification(descriptor.rawValue, notification.id)
  }

  /// Lets the call return a copy of a descriptor.
  ///
  /// - Throws: `ENOENT` if the process does not wait any more; `EMFILE` if it can have no more descriptors.
  func answer(
    _ notification: Notification, descriptor copied: FileDescriptor, closesOnExec: Bool
  ) throws(Errno) {
    guard
      clinux_answer_descriptor(
        descriptor.rawValue, notification.id, copied.rawValue, closesOnExec ? O_CLOEXEC : 0) >= 0
    else { throw .current }
  }
}
