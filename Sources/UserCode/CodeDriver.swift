import CLinux
import CUserCode
import CharacterDeviceServer
import Glibc
import Stage2Sim
import SystemPackage
import VirtWalkerDevice

/// A user's kernel module, as the driver in the guest.
final class CodeDriver: GuestFileOperations {
  private let name: String
  private let process: CodeProcess
  /// The calls that wait in the module.
  private var waitingCalls: Set<UInt64> = []
  /// The number of the last open file.
  private var files: UInt64 = 0
  /// The reason why the guest has stopped in the present call.
  private var stop: GuestStopped?
  /// Whether the module was unloaded, or its start has failed.
  private var isUnloaded = false
  /// The module's open() has taken the positions away, or a call has waited, so that a read must not hold up a write of the same open
  /// file.
  private(set) var isStream = false
  /// The names of the device nodes that the module has made.
  private(set) var nodes: [String] = []
  /// Asks for a ``GuestFileOperations`` call of all calls that wait after some milliseconds; nil if there is no timer, so that the
  /// driver waits itself.
  private let wakeUpLater: ((Int) -> Void)?

  /// The number of a call that cannot wait. The engine counts the calls of programs from 1.
  private static let callWithoutWait = UInt64.max
  /// The most device nodes that a module has.
  private static let mostNodes = 256
  private static let crash = GuestStopped(result: .crashed(.guest), abort: nil)

  /// Loads a module: `insmod`.
  ///
  /// - Parameters:
  ///   - process: The process of the module.
  ///   - name: The name of its source.
  ///   - parameters: `name=value`, with spaces between.
  ///   - machine: The machine.
  ///   - wakeUpLater: Asks for a call of all calls that wait after some milliseconds.
  /// - Throws: The reason why the module is not loaded.
  init(
    _ process: CodeProcess, name: String, parameters: String, in machine: inout VirtualMachine,
    wakeUpLater: ((Int) -> Void)?
  ) throws(CodeFailure) {
    self.process = process
    self.name = name
    self.wakeUpLater = wakeUpLater
    let answer: channel_message
    do throws(GuestDriverError) {
      answer = try callWithoutWaiting(
        CHANNEL_START, data: Array(parameters.utf8).span, on: &machine)
    } catch {
      isUnloaded = true
      throw CodeFailure(failure(error))
    }
    guard answer.result != 0 else { return }
    isUnloaded = true
    let failure =
      "insmod: the init function of \(name) returned \(ErrorName.describe(answer.result))"
    machine.printk(text: failure)
    throw CodeFailure(failure)
  }

  /// The reason why the init function has not come to its end.
  private func failure(_ error: GuestDriverError) -> String {
    if let fatal = process.fatal {
      return "insmod: the init function of \(name) has crashed: \(fatal)"
    }
    if case .stopped = error {
      return
        "insmod: the init function of \(name) has not ended: the guest has stopped at an access to a device. No hook and no device answers it, see host/dmesg."
    }
    return "insmod: the init function of \(name) waits for something that does not come"
  }

  // MARK: - The operations

  func open(_ file: inout GuestFile, on machine: inout VirtualMachine) throws(GuestDriverError) {
    files += 1
    file.privateData = UInt(files)
    let answer = try callWithoutWaiting(
      CHANNEL_OPEN, file: files,
      (UInt64(UInt32(bitPattern: file.flags)), UInt64(getuid()), UInt64(getgid()), 0), on: &machine,
      waking: &file)
    try check(answer.result)
    if answer.arguments.0 & 1 != 0 { isStream = true }
  }

  func release(_ file: inout GuestFile, on machine: inout VirtualMachine) {
    _ = try? callWithoutWaiting(
      CHANNEL_RELEASE, file: UInt64(file.privateData), on: &machine, waking: &file)
  }

  func read(
    into buffer: inout OutputSpan<UInt8>, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) {
    let room = min(buffer.freeCapacity, Int(CHANNEL_DATA_SIZE))
    let answer = try callThatCanWait(
      CHANNEL_READ,
      (
        UInt64(room), UInt64(bitPattern: Int64(file.position)), flags(file),
        file.hasBadBuffer ? 1 : 0
      ),
      &file, on: &machine)
    try check(answer.result)
    file.position = Int(truncatingIfNeeded: answer.arguments.0)
    let count = Int(min(answer.result, Int64(room)))
    let given = min(Int(answer.length), room)
    process.channel.appendData(min(count, given), to: &buffer)
    // The runtime tells a count that is too large, with its line.
    if count > given {
      for _ in given..<count { buffer.append(0) }
    } else if given > count, !file.hasBadBuffer {
      find(
        "read returned \(count), but has given the program \(given) byte\(given == 1 ? "" : "s") by copy_to_user() or put_user(): the program takes \(count) for the number of bytes that it has got",
        on: &machine)
    }
  }

  func write(
    _ bytes: Span<UInt8>, _ file: inout GuestFile, on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int {
    let bytes =
      bytes.count <= Int(CHANNEL_DATA_SIZE)
      ? bytes : bytes.extracting(first: Int(CHANNEL_DATA_SIZE))
    let answer = try callThatCanWait(
      CHANNEL_WRITE,
      (
        UInt64(bytes.count), UInt64(bitPattern: Int64(file.position)), flags(file),
        file.hasBadBuffer ? 1 : 0
      ),
      data: bytes, &file, on: &machine)
    try check(answer.result)
    file.position = Int(truncatingIfNeeded: answer.arguments.0)
    return Int(min(answer.result, Int64(bytes.count)))
  }

  func ioctl(
    _ command: IoctlCommand, _ argument: UInt64, _ input: Span<UInt8>,
    into output: inout OutputSpan<UInt8>, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int32 {
    let answer = try callThatCanWait(
      CHANNEL_IOCTL,
      (UInt64(command.rawValue), argument, flags(file), UInt64(output.freeCapacity)),
      data: input, &file, on: &machine)
    try check(answer.result)
    process.channel.appendData(Int(answer.length), to: &output)
    return Int32(clamping: answer.result)
  }

  func llseek(
    _ offset: Int, from origin: SeekRequest.Origin, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int {
    let whence: UInt64 =
      switch origin {
      case .end: UInt64(SEEK_END)
      case .data: UInt64(CLINUX_SEEK_DATA)
      case .hole: UInt64(CLINUX_SEEK_DATA) + 1
      }
    let answer = try callWithoutWaiting(
      CHANNEL_LLSEEK, file: UInt64(file.privateData),
      (
        UInt64(bitPattern: Int64(offset)), whence, UInt64(bitPattern: Int64(file.position)), 0
      ), on: &machine, waking: &file)
    try check(answer.result)
    file.position = Int(truncatingIfNeeded: answer.arguments.0)
    return Int(truncatingIfNeeded: answer.result)
  }

  func poll(_ file: inout GuestFile, on machine: inout VirtualMachine) -> PollEvents? {
    guard
      let answer = try? callWithoutWaiting(
        CHANNEL_POLL, file: UInt64(file.privateData), (flags(file), 0, 0, 0), on: &machine,
        waking: &file)
    else { return .error }
    // DEFAULT_POLLMASK, that of a module without poll: the kernel does not ask again.
    guard answer.result != 0x145 else { return nil }
    return PollEvents(rawValue: UInt32(truncatingIfNeeded: answer.result))
  }

  func interrupt(_ file: inout GuestFile, on machine: inout VirtualMachine) {
    interrupt(file.call, &file, on: &machine)
  }

  func unload(from machine: inout VirtualMachine) {
    guard !isUnloaded else { return }
    isUnloaded = true
    _ = try? callWithoutWaiting(CHANNEL_STOP, on: &machine)
  }

  // MARK: - Calls

  private func flags(_ file: GuestFile) -> UInt64 { UInt64(UInt32(bitPattern: file.flags)) }

  /// Makes a call that can wait, or makes it again.
  private func callThatCanWait(
    _ kind: channel_call, _ arguments: (UInt64, UInt64, UInt64, UInt64),
    data: Span<UInt8> = Span(), _ file: inout GuestFile, on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> channel_message {
    let isAgain = waitingCalls.remove(file.call) != nil
    let answer = try call(
      isAgain ? CHANNEL_AGAIN : kind, file: UInt64(file.privateData), number: file.call, arguments,
      data: isAgain ? Span() : data, on: &machine)
    if answer.arguments.7 & 1 != 0 { file.wakeUp() }
    guard answer.kind == CHANNEL_WAITS.rawValue else { return answer }
    isStream = true
    waitingCalls.insert(file.call)
    if file.isNonBlocking {
      // The engine does not keep the call.
      interrupt(file.call, &file, on: &machine)
    } else if let delay = answer.delay {
      if let wakeUpLater {
        wakeUpLater(delay)
      } else {
        sleep(delay)
        return try callThatCanWait(kind, arguments, &file, on: &machine)
      }
    }
    throw .wait
  }

  private func interrupt(
    _ number: UInt64, _ file: inout GuestFile, on machine: inout VirtualMachine
  ) {
    guard waitingCalls.remove(number) != nil else { return }
    guard
      let answer = try? call(
        CHANNEL_INTERRUPT, file: UInt64(file.privateData), number: number, on: &machine)
    else { return }
    if answer.arguments.7 & 1 != 0 { file.wakeUp() }
  }

  private func callWithoutWaiting(
    _ kind: channel_call, file: UInt64,
    _ arguments: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0),
    on machine: inout VirtualMachine, waking open: inout GuestFile
  ) throws(GuestDriverError) -> channel_message {
    let answer = try callWithoutWaiting(kind, file: file, arguments, on: &machine)
    if answer.arguments.7 & 1 != 0 { open.wakeUp() }
    return answer
  }

  /// Makes a call that cannot wait for another call of a program. A wait for some time is possible.
  private func callWithoutWaiting(
    _ kind: channel_call, file: UInt64 = 0,
    _ arguments: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0), data: Span<UInt8> = Span(),
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> channel_message {
    var answer = try call(
      kind, file: file, number: Self.callWithoutWait, arguments, data: data, on: &machine)
    var time = 0
    while answer.kind == CHANNEL_WAITS.rawValue, let delay = answer.delay, time < Self.longestSleep
    {
      time += delay
      sleep(delay)
      answer = try call(CHANNEL_AGAIN, file: file, number: Self.callWithoutWait, on: &machine)
    }
    if answer.kind == CHANNEL_WAITS.rawValue {
      _ = try call(CHANNEL_INTERRUPT, file: file, number: Self.callWithoutWait, on: &machine)
      throw .wait
    }
    return answer
  }

  /// The milliseconds that one call can sleep in the daemon.
  private static let longestSleep = 5000

  /// Lets time pass, in which other nodes are served.
  private func sleep(_ milliseconds: Int) {
    var rest = min(milliseconds, Self.longestSleep)
    while rest > 0 {
      let part = min(rest, 5)
      usleep(UInt32(part) * 1000)
      rest -= part
      if process.channel.mayGoOn?() == false { return }
    }
  }

  private func call(
    _ kind: channel_call, file: UInt64 = 0, number: UInt64 = 0,
    _ arguments: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0), data: Span<UInt8> = Span(),
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> channel_message {
    stop = nil
    // The functions below use the machine, but never two of them at a time.
    return try withUnsafeMutablePointer(to: &machine) { machine throws(GuestDriverError) in
      process.isDevice = { machine.pointee.isMapped(GuestVirtualAddress($0)) }
      defer { process.isDevice = { _ in false } }
      let answer: channel_message
      do throws(CodeProcess.Ended) {
        answer = try process.call(
          kind, file: file, number: number, arguments, data: data,
          log: { line, _ in machine.pointee.printk(text: line) },
          answer: { request in self.answer(request, on: &machine.pointee) })
      } catch {
        throw .stopped(Self.crash)
      }
      if let stop { throw .stopped(stop) }
      if answer.kind == CHANNEL_DONE.rawValue, answer.result == Int64(CHANNEL_STOPPED) {
        throw .stopped(Self.crash)
      }
      return answer
    }
  }

  /// - Throws: The error that a result is.
  private func check(_ result: Int64) throws(GuestDriverError) {
    guard result < 0 else { return }
    switch result {
    // ERESTARTSYS and its kin, which a program never sees.
    case -516 ... -512: throw .errno(.interrupted)
    case -999 ... -1: throw .errno(Errno(rawValue: Int32(-result)))
    default: throw .errno(.ioError)
    }
  }

  private func find(_ text: String, on machine: inout VirtualMachine) {
    process.report(
      CodeFinding(
        kind: .module, text: text,
        place: SourcePlace(function: "", file: name, line: 0, isUsers: true)),
      log: { machine.printk(text: $0) })
  }

  // MARK: - Requests

  private func answer(
    _ request: channel_message, on machine: inout VirtualMachine
  ) -> CodeChannel.Reply {
    let arguments = request.arguments
    var reply = CodeChannel.Reply()
    switch request.kind {
    case CHANNEL_ACCESS.rawValue:
      do throws(GuestStopped) {
        reply.values.0 = try access(request, on: &machine)
      } catch {
        stop = error
        reply.result = 1
      }
    case CHANNEL_HVC.rawValue:
      do throws(GuestStopped) {
        if let stop { throw stop }
        reply.values = try machine.hypercall([
          arguments.0, arguments.1, arguments.2, arguments.3, arguments.4, arguments.5,
          arguments.6,
        ])
      } catch {
        stop = error
        reply.result = 1
      }
    case CHANNEL_IOREMAP.rawValue:
      let mapped = machine.ioremap(
        IntermediatePhysicalAddress(arguments.0), size: arguments.1)
      reply.values.0 = mapped?.rawValue ?? 0
    case CHANNEL_IOUNMAP.rawValue: machine.iounmap(GuestVirtualAddress(arguments.0))
    case CHANNEL_NODE.rawValue:
      guard nodes.count < Self.mostNodes else {
        reply.result = Int64(-ENOMEM)
        break
      }
      nodes.append(nodeName(request))
    case CHANNEL_NODE_GONE.rawValue:
      let name = nodeName(request)
      nodes.removeAll { $0 == name }
    default: reply.result = Int64(-EINVAL)
    }
    return reply
  }

  private func nodeName(_ request: channel_message) -> String {
    CodeRecord.printable(process.channel.data(min(Int(request.length), 255)))
  }

  private func access(
    _ request: channel_message, on machine: inout VirtualMachine
  ) throws(GuestStopped) -> UInt64 {
    // A module in a loop of accesses still lets the request be one at a time. An access after a stop has no effect.
    if let stop { throw stop }
    let address = GuestVirtualAddress(request.arguments.0)
    let size: LoadStore.Size =
      switch request.arguments.1 {
      case 1: .byte
      case 2: .halfword
      case 4: .word
      default: .doubleword
      }
    guard request.arguments.2 & 1 != 0 else { return try machine.read(size, from: address) }
    try machine.write(request.arguments.3, size, to: address)
    return 0
  }
}

extension channel_message {
  /// The milliseconds after which a call that waits goes on by itself; nil if it waits for another call.
  fileprivate var delay: Int? {
    arguments.6 == 0 ? nil : Int(min(arguments.6, 1 << 30))
  }
}
