import SystemPackage

/// A character device with all operations of libfuse's `cuse_lowlevel_ops`.
///
/// A server calls the device from the one thread that serves the node, one call at a time. A request is answered exactly
/// once, by a method that consumes it. A request that is dropped without an answer fails with `EIO`. A request that has to
/// wait goes into a ``WaitQueue``, and the device answers it later.
///
/// Each operation has a default, so that a device implements only its own operations. ``SimpleDevice`` is a shorter form
/// for a device that answers each read and write at once.
public protocol CharacterDevice<Handle>: AnyObject {
  /// The state that the device keeps for each open file; `Void` if it keeps none.
  associatedtype Handle = Void

  /// `open(2)`. The default accepts each open if ``Handle`` is `Void`.
  func open(_ request: consuming OpenRequest<Handle>)

  /// The last descriptor of `file` was closed, or the server has ended while a client had it open. This is called once for
  /// each open that was accepted. The default does nothing.
  func release(_ file: OpenFile<Handle>)

  /// `read(2)`, `pread(2)`, `readv(2)` and other calls that read. The default fails with `EINVAL`, as the kernel does for a driver
  /// without read.
  func read(_ request: consuming ReadRequest, _ file: OpenFile<Handle>)

  /// `write(2)`, `pwrite(2)`, `writev(2)` and other calls that write. The default fails with `EINVAL`.
  ///
  /// - Parameters:
  ///   - request: The answer says how many bytes were taken.
  ///   - bytes: The client's bytes, valid until this method returns. There is at least one byte.
  ///   - file: The open file.
  func write(_ request: consuming WriteRequest, _ bytes: Span<UInt8>, _ file: OpenFile<Handle>)

  /// `ioctl(2)`. The default fails with `ENOTTY`.
  ///
  /// - Parameters:
  ///   - request: The command with its argument.
  ///   - input: The bytes of the areas that the command reads, valid until this method returns.
  ///   - file: The open file.
  func ioctl(_ request: consuming IoctlRequest, _ input: Span<UInt8>, _ file: OpenFile<Handle>)

  /// The areas of the client's memory that an `ioctl(2)` command reads and writes, on a node with unrestricted ioctl
  /// (``CUSEServer``). The default is the one area that the command's encoding gives, as the kernel has it on a node with
  /// restricted ioctl.
  ///
  /// A command whose areas depend on what the client's memory holds calls ``IoctlRequest/retry(_:)`` as well.
  func ioctlAreas(_ command: IoctlCommand, argument: UInt64) -> IoctlAreas

  /// `poll(2)`, `select(2)` and `epoll_wait(2)`: the events that `file` has now. ``OpenFile`` wakes the client later, see
  /// ``AnyOpenFile/notifyPoll()`` and ``PollWaiters``.
  ///
  /// - Parameter events: The events that the client asks for; empty if the kernel does not say.
  /// - Returns: Nil for a device that is always readable and writable: the kernel does not ask again then. The default is nil.
  func poll(_ events: PollEvents, _ file: OpenFile<Handle>) -> PollEvents?

  /// Whether the device has no positions, as a pipe or a terminal. A device whose reads or writes wait says true. A server asks once
  /// for each open. The default is false.
  ///
  /// On a FUSE node the kernel locks the position of an open file, and the file for writes, until a call is answered: a read that waits
  /// would hold up a write of the same open file, and a write that waits would hold up all other writes. If a device says true, the
  /// kernel does not take these locks (for writes from Linux 6.2 on), and `lseek(2)`, `pread(2)` and `pwrite(2)` fail with
  /// `ESPIPE`. CUSE nodes have no such locks.
  var isStream: Bool { get }

  /// Whether the device wants ``flush(_:_:)``. A client waits for the answer at each `close(2)`, and no signal ends that wait.
  /// The default is false. A server asks once for each open.
  var wantsFlush: Bool { get }

  /// `close(2)` of one descriptor of `file`, which may have other descriptors. The error of the answer is the result of `close(2)`. Only
  /// FUSE nodes have this request. The default succeeds.
  func flush(_ request: consuming SyncRequest, _ file: OpenFile<Handle>)

  /// `fsync(2)`, and `fdatasync(2)` if `dataOnly` is true. Only FUSE nodes have this request; CUSE's kernel module answers `EINVAL`.
  /// The default fails with `EINVAL`, as the kernel does for a driver without fsync.
  func fsync(_ request: consuming SyncRequest, dataOnly: Bool, _ file: OpenFile<Handle>)

  /// `lseek(2)` with `SEEK_END`, `SEEK_DATA` or `SEEK_HOLE` on a FUSE node, see ``SeekRequest``. A server does not ask for
  /// `SEEK_END` if the device has a ``size``. The default takes a device with a size for data without holes, and fails with
  /// `ESPIPE` for any other.
  func seek(_ request: consuming SeekRequest, _ file: OpenFile<Handle>)

  /// The size of a device that has positions, in bytes. On a FUSE node, `stat(2)` gives it, and `lseek(2)` with `SEEK_END` counts
  /// from it. Nil for a device without a size: `stat(2)` gives 0, and ``seek(_:_:)`` answers `SEEK_END`. CUSE nodes have no size.
  /// The default is nil.
  var size: Int? { get }

  /// Whether one read after another gives the same bytes until something is written, and has no other effect. The default is
  /// false.
  ///
  /// Some programs copy from a node with splice(2). On FUSE and Linux 6.19 and later, such a program gets the bytes of one read again
  /// and again if this is true, and the error EIO if it is false. A device with a ``size`` gives the bytes at the position instead.
  var givesTheSameAgain: Bool { get }
}

extension CharacterDevice where Handle == Void {
  public func open(_ request: consuming OpenRequest<Void>) { request.accept(()) }
}

extension CharacterDevice {
  public func release(_ file: OpenFile<Handle>) {}

  public func read(_ request: consuming ReadRequest, _ file: OpenFile<Handle>) {
    request.fail(.invalidArgument)
  }

  public func write(
    _ request: consuming WriteRequest, _ bytes: Span<UInt8>, _ file: OpenFile<Handle>
  ) {
    request.fail(.invalidArgument)
  }

  public func ioctl(
    _ request: consuming IoctlRequest, _ input: Span<UInt8>, _ file: OpenFile<Handle>
  ) {
    request.fail(.inappropriateIOCTLForDevice)
  }

  public func ioctlAreas(_ command: IoctlCommand, argument: UInt64) -> IoctlAreas {
    IoctlAreas(encodedIn: command, at: argument)
  }

  public func poll(_ events: PollEvents, _ file: OpenFile<Handle>) -> PollEvents? { nil }

  public var isStream: Bool { false }

  public var wantsFlush: Bool { false }

  public func flush(_ request: consuming SyncRequest, _ file: OpenFile<Handle>) {
    request.succeed()
  }

  public func fsync(
    _ request: consuming SyncRequest, dataOnly: Bool, _ file: OpenFile<Handle>
  ) {
    request.fail(.invalidArgument)
  }

  public func seek(_ request: consuming SeekRequest, _ file: OpenFile<Handle>) {
    guard let size else { return request.fail(.illegalSeek) }
    guard request.offset < size else { return request.fail(.noSuchAddressOrDevice) }
    request.answer(request.origin == .data ? request.offset : size)
  }

  public var size: Int? { nil }

  public var givesTheSameAgain: Bool { false }
}

/// A device that answers each read and write at once, without positions, and does not distinguish its clients.
///
/// It may implement the other operations of ``CharacterDevice``, too. A device whose ``CharacterDevice/Handle`` is not `Void` implements
/// ``CharacterDevice/open(_:)``.
public protocol SimpleDevice: CharacterDevice {
  /// `open(2)`. An error is the result of the call. The default accepts each open.
  func open() throws(Errno)

  /// `read(2)`: appends at most `buffer.freeCapacity` bytes, which is the number that the client asked for. No bytes are the end
  /// of the file.
  func read(into buffer: inout OutputSpan<UInt8>) throws(Errno)

  /// `write(2)`: takes some of `bytes`, at least one, and returns how many.
  func write(_ bytes: Span<UInt8>) throws(Errno) -> Int
}

extension SimpleDevice where Handle == Void {
  public func open(_ request: consuming OpenRequest<Void>) {
    do throws(Errno) {
      try open()
      request.accept(())
    } catch {
      request.fail(error)
    }
  }
}

extension SimpleDevice {
  public func open() throws(Errno) {}

  public func read(_ request: consuming ReadRequest, _ file: OpenFile<Handle>) {
    request.answer { (buffer) throws(Errno) in try read(into: &buffer) }
  }

  public func write(
    _ request: consuming WriteRequest, _ bytes: Span<UInt8>, _ file: OpenFile<Handle>
  ) {
    do throws(Errno) {
      request.answer(taken: try write(bytes))
    } catch {
      request.fail(error)
    }
  }
}
