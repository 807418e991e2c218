import CLabLink
import CLinux
import CharacterDeviceServer
import Glibc
import Scenarios
import Stage2Sim
import SystemPackage
import VirtWalkerDevice

/// An engine whose machine is real: a KVM guest of Linux for arm64, in an emulated host.
///
/// A monitor in the host runs the guest, and an agent in the guest makes the calls of the node's clients (Kernel/lab). The engine sends
/// requests to the monitor, and answers the clients when the monitor answers. Nothing waits in between, except ``reset(completion:)``,
/// ``waitForReleases()``, `poll` and the functions of ``view``.
public final class KernelEngine {
  public private(set) var machine: MachineDescription
  public let events: EventStream
  public var mayGoOn: (() -> Bool)?
  /// The reason why the guest does not run any more; nil if it runs.
  public private(set) var guestStop: GuestStopped?
  /// The first line of the host's words about ``guestStop``; empty if the guest runs.
  public private(set) var stopReason = ""
  /// The path of the device in the guest.
  public private(set) var device = ""
  /// The release of the host's and the guest's kernel.
  public private(set) var kernelRelease = ""

  let host: EmulatedHost
  private let preferredDevice: String
  /// The content of the guest's initramfs. A change takes effect at the next boot of the guest.
  public var guestInitramfs: [UInt8]
  private let guestArguments: String
  private let onLogLine: (String, EventLayer) -> Void
  /// The number of times that the guest was booted.
  var boots: UInt32 = 0
  private var nextID: UInt64 = 0
  private var waiting: [UInt64: (MonitorAnswer) -> Void] = [:]
  private var isHostReady = false
  /// Whether the engine ends the guest itself, so that its end is no event.
  private var isHalting = false
  /// The time at which the host has sent its last frame, in nanoseconds.
  private var lastSign: UInt64 = 0
  /// The numbers of events of the boots before the present one.
  private var countsBefore = EventCounts()
  /// The entries on the way to the target, after the last answer.
  var targetPath: [TableVisit] = []
  /// The reference counts of the tables on that way.
  var targetCounts: [Int] = []
  /// The number of releases that the guest has not made yet. An open waits for them, as a driver may allow one open file.
  var releasing = 0
  /// Whether the guest has taken long for one of these releases. Nothing waits for them any more.
  var isReleaseSlow = false
  var openings: [() -> Void] = []
  /// The calls that wait for an event of a file, by the handle of the file.
  var pollWaits: [UInt32: UInt64] = [:]
  private var letters = FrameLetters()
  /// Whether somebody has called ``proceed()``, and so observes ``events``.
  private var isObserved = false
  /// The lines of both kernels' logs until then.
  private var earlyLog: [(bytes: [UInt8], layer: EventLayer)] = []

  /// The longest time from power-on until the monitor runs, and from there until the guest's module is loaded, in seconds.
  private static let bootLimit: UInt64 = 120
  /// The longest time of a request that the daemon waits for, in seconds.
  static let requestLimit: UInt64 = 10
  /// The longest time that ``waitForReleases()`` waits, in seconds.
  private static let releaseLimit: UInt64 = 1
  /// The host sends a frame each second. After this time without one, it is taken for dead, in seconds.
  private static let silenceLimit: UInt64 = 30

  /// Starts a host, boots a guest and loads the module into it.
  ///
  /// - Parameters:
  ///   - machine: The machine. The host and the guest have pages of 4 KiB.
  ///   - host: The host, which was started just now.
  ///   - guestInitramfs: The content of the guest's initramfs.
  ///   - preferredDevice: The name of the device to use if the module makes several.
  ///   - guestArguments: More words of the guest's kernel command line.
  ///   - eventCapacity: The number of events that ``events`` keeps, a power of two.
  ///   - onLogLine: A function that takes each line of both kernels' logs; the layer is `.driver` for the guest.
  ///   - progress: A function that is called with each stage of the start.
  /// - Throws: ``EngineFailure`` with the lines of the kernel that has failed.
  public init(
    _ machine: MachineDescription, on host: EmulatedHost, guestInitramfs: [UInt8],
    preferredDevice: String, guestArguments: String = "", eventCapacity: Int = 1 << 14,
    onLogLine: @escaping (String, EventLayer) -> Void = { _, _ in },
    progress: (String) -> Void
  ) throws(EngineFailure) {
    self.machine = machine
    self.host = host
    self.guestInitramfs = guestInitramfs
    self.preferredDevice = preferredDevice
    self.guestArguments = guestArguments
    self.onLogLine = onLogLine
    events = EventStream(capacity: eventCapacity)
    try waitForHost()
    progress("the host runs Linux \(kernelRelease)")
    try boot()
    progress("the guest runs, and its module has made \(device)")
  }

  deinit { end() }

  /// Unloads the module, and ends the host. The engine is of no use afterwards.
  public func end() {
    guard host.isRunning else { return }
    halt()
    host.end()
    lose(because: "the host was switched off")
  }

  /// Unloads the module, and ends the guest.
  private func halt() {
    guard isRunning else { return }
    isHalting = true
    _ = request(LAB_HALT, limit: Self.requestLimit)
    isHalting = false
    guestStop = GuestStopped(result: .lost, abort: nil)
  }

  // MARK: - The start

  private func waitForHost() throws(EngineFailure) {
    let deadline = Self.now + Self.bootLimit * Self.second
    while !isHostReady {
      guard Self.now < deadline else {
        throw failure("the host's kernel has not started within \(Self.bootLimit) s")
      }
      if let reason = takeFrames(waiting: 200) {
        throw failure("the host's kernel has not started: \(reason)")
      }
    }
  }

  /// Boots a guest, and loads the module into it.
  private func boot() throws(EngineFailure) {
    send(LAB_TRACE, withUnsafeBytes(of: UInt32(0).littleEndian) { Array($0) }) { _ in }
    guestStop = nil
    stopReason = ""
    boots &+= 1
    pollWaits = [:]
    let line = Array("panic=-1 oops=panic \(guestArguments)".utf8)
    let configuration = machine.configuration
    let header = lab_boot(
      memory: configuration.memorySize, backing: Self.backing(configuration.backing).rawValue,
      ipa_bits: UInt32(configuration.ipaBits), command_line: UInt32(line.count), reserved: 0)
    let payload = withUnsafeBytes(of: header) { Array($0) } + line + guestInitramfs
    var answer = request(LAB_BOOT, payload, limit: Self.bootLimit)
    if answer?.error == .resourceBusy {
      // The vCPU of the guest before does not leave the host's kernel.
      try powerCycle()
      answer = request(LAB_BOOT, payload, limit: Self.bootLimit)
    } else if answer?.error == Errno(rawValue: ETIME) {
      // One of about a thousand guests takes an exception at its first instructions, where its kernel has no vectors yet. No code of the
      // user's module has run by then.
      answer = request(LAB_BOOT, payload, limit: Self.bootLimit)
    }
    guard let answer else { throw failure("the guest has not started") }
    if let error = answer.error {
      let stop = answer.text.isEmpty ? "\(error)" : answer.text
      throw failure("the guest has not started: \(stop)")
    }
    let names = answer.data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    device = try choose(from: names)
  }

  private func choose(from names: [String]) throws(EngineFailure) -> String {
    guard let first = names.first else {
      throw EngineFailure(
        "the module is loaded, but it has made no character device: register one, e.g. by misc_register()"
      )
    }
    let wanted = names.first { $0 == preferredDevice }
    guard names.count == 1 || wanted != nil else {
      throw EngineFailure(
        "the module has made several devices (\(names.joined(separator: ", "))): --name selects one of them"
      )
    }
    return "/dev/\(wanted ?? first)"
  }

  private static func backing(_ backing: Backing) -> lab_backing {
    switch backing {
    case .huge: LAB_HUGE
    case .hugetlb: LAB_HUGETLB
    default: LAB_ANONYMOUS
    }
  }

  /// A failure with the last lines of both kernels.
  private func failure(_ reason: String) -> EngineFailure {
    EngineFailure(([reason] + host.lastLines.map { "  \($0)" }).joined(separator: "\n"))
  }

  // MARK: - Requests

  private static let second: UInt64 = 1_000_000_000
  private static var now: UInt64 { clinux_monotonic_nanoseconds() }

  /// Sends a request.
  ///
  /// - Parameter completion: A function that is called once with the answer.
  /// - Returns: The id of the request.
  @discardableResult
  func send(
    _ kind: lab_kind, _ payload: [UInt8] = [], completion: @escaping (MonitorAnswer) -> Void
  ) -> UInt64 {
    nextID += 1
    let id = nextID
    guard isHostReady else {
      completion(.lost)
      return id
    }
    waiting[id] = completion
    do throws(MonitorLink.Failure) {
      try host.link.send(kind, id: id, payload)
    } catch {
      lose(because: "\(error)")
    }
    return id
  }

  /// Sends a request and waits for its answer.
  ///
  /// - Returns: Nil if there was none in time.
  func request(
    _ kind: lab_kind, _ payload: [UInt8] = [], limit: UInt64
  ) -> MonitorAnswer? {
    var answer: MonitorAnswer?
    let id = send(kind, payload) { answer = $0 }
    let deadline = Self.now + limit * Self.second
    while answer == nil {
      guard Self.now < deadline else {
        waiting[id] = { _ in }
        return nil
      }
      takeFrames(waiting: 100)
    }
    return answer
  }

  /// A call of a client, as the monitor gets it.
  func payload(_ call: lab_call, _ bytes: [UInt8] = []) -> [UInt8] {
    var call = call
    call.size = UInt32(bytes.count)
    return withUnsafeBytes(of: call) { Array($0) } + bytes
  }

  func call(_ operation: lab_operation, _ caller: Caller?) -> lab_call {
    var call = lab_call()
    call.operation = operation.rawValue
    if let caller {
      call.process = UInt32(bitPattern: caller.pid)
      call.user = caller.uid
      call.group = caller.gid
    }
    withUnsafeMutableBytes(of: &call.name) { $0.copyBytes(from: "virt-walkerd".utf8) }
    return call
  }

  /// Passes a client's request on, and answers it when the guest has made the call. A signal for the client goes to the guest.
  func pass<Request: DeviceRequest & ~Copyable>(
    _ request: consuming Request, _ call: lab_call, _ bytes: [UInt8] = [],
    answer: @escaping (consuming Request, MonitorAnswer) -> Void
  ) {
    guard isRunning else {
      events.appendGuestStopped()
      request.fail(.ioError)
      return
    }
    var id: UInt64?
    var isInterrupted = false
    let held = HeldRequest(request) { [weak self] in
      // The signal may come before the call is sent.
      if let id { self?.interrupt(id) } else { isInterrupted = true }
    }
    id = send(LAB_CALL, payload(call, bytes)) { [unowned self] result in
      guard let request = held.take() else { return }
      if !isRunning { events.appendGuestStopped() }
      answer(request, result)
    }
    if isInterrupted, let id { interrupt(id) }
  }

  /// Whether the guest has still to make releases that nobody has waited for in vain.
  public var isReleasing: Bool { releasing > 0 && !isReleaseSlow && isRunning }

  /// Waits until the guest has made its releases, for at most a second. The kernel does not let close(2) wait for them, and a program may
  /// read the guest's log next.
  public func waitForReleases() {
    let deadline = Self.now + Self.releaseLimit * Self.second
    while isReleasing {
      isReleaseSlow = Self.now >= deadline
      takeFrames(waiting: 100)
    }
  }

  func interrupt(_ id: UInt64) {
    guard waiting[id] != nil else { return }
    var call = lab_call()
    call.operation = LAB_INTERRUPT.rawValue
    call.argument = id
    send(LAB_CALL, payload(call)) { _ in }
  }

  var isRunning: Bool { isHostReady && guestStop == nil }

  // MARK: - Frames

  /// The descriptors that are readable when ``proceed()`` has something to do.
  public var descriptors: [FileDescriptor] { [host.link.descriptor, host.console.descriptor] }

  /// Whether the emulator runs. Afterwards, ``descriptors`` stay readable for ever.
  public var isConnected: Bool { host.isRunning }

  /// Takes what the host has sent, and answers clients. The first call also puts the lines of the start into the logs.
  public func proceed() {
    if !isObserved {
      isObserved = true
      for (bytes, layer) in earlyLog { append(log: bytes, layer) }
      earlyLog = []
      startTrace()
    }
    takeFrames(waiting: 0)
  }

  /// Lets the host send its trace. The events of a boot are not in it, because they are many.
  private func startTrace() {
    guard isRunning else { return }
    send(LAB_TRACE, withUnsafeBytes(of: UInt32(1).littleEndian) { Array($0) }) { _ in }
  }

  /// Looks whether the host still runs. Call this about once a second.
  public func checkHost() {
    guard isHostReady, Self.now > lastSign + Self.silenceLimit * Self.second else { return }
    lose(because: "the host has not answered for \(Self.silenceLimit) s")
  }

  /// - Returns: The reason why the link has ended.
  @discardableResult
  func takeFrames(waiting limit: Int32) -> String? {
    host.readConsole()
    if limit > 0 { _ = host.link.wait(milliseconds: limit) }
    do throws(MonitorLink.Failure) {
      for frame in try host.link.receive() { take(frame) }
      return nil
    } catch {
      host.readConsole()
      host.end()
      lose(because: "\(error)")
      return "\(error)"
    }
  }

  private func take(_ frame: MonitorLink.Frame) {
    lastSign = Self.now
    switch frame.kind {
    case LAB_ANSWER:
      guard let completion = waiting.removeValue(forKey: frame.id) else { return }
      let answer = MonitorAnswer(frame.payload) ?? .lost
      if let counts = answer.counts { take(counts) }
      completion(answer)
    case LAB_READY:
      // A host that starts again has lost its guest.
      if isHostReady { lose(because: "the host's kernel has crashed, and was booted again") }
      countsBefore = events.counts
      isHostReady = true
      kernelRelease = String(decoding: frame.payload, as: UTF8.self)
      setVersion()
    case LAB_GUEST_LOG: append(log: frame.payload, .driver)
    case LAB_HOST_LOG:
      append(log: frame.payload, .kvm)
      host.console.forget()
    case LAB_TRACE_TEXT:
      forEachLine(frame.payload) { events.append(trace: $0) }
    case LAB_STOPPED: stop(String(decoding: frame.payload, as: UTF8.self))
    default: break
    }
  }

  /// Counters never go back, also if the host starts anew.
  private func take(_ counts: lab_counts) {
    var sum = countsBefore
    sum.entries &+= counts.entries
    sum.translationFaults &+= counts.translation_faults
    sum.accessFlagFaults &+= counts.access_flag_faults
    sum.permissionFaults &+= counts.permission_faults
    sum.addressSizeFaults &+= counts.other_faults
    sum.aborts &+=
      counts.translation_faults &+ counts.access_flag_faults &+ counts.permission_faults
      &+ counts.other_faults
    sum.invalidations &+= counts.invalidations
    sum.invalidationsOfAll &+= counts.invalidations_of_all
    sum.mmioExits &+= counts.mmio_exits
    events.counts = sum
  }

  private func forEachLine(_ bytes: [UInt8], _ body: (String) -> Void) {
    for line in bytes.split(separator: UInt8(ascii: "\n")) {
      body(String(decoding: line, as: UTF8.self).printable)
    }
  }

  /// Appends lines of a kernel's log, with the times that the kernel has written.
  private func append(log bytes: [UInt8], _ layer: EventLayer) {
    forEachLine(bytes) { line in
      if layer == .driver { host.noteGuestLine(line) }
      onLogLine(StampedLine(line).map { String($0.text) } ?? line, layer)
    }
    guard isObserved else {
      earlyLog.append((bytes, layer))
      return
    }
    let time = events.time
    defer { events.time = time }
    forEachLine(bytes) { line in
      guard let stamped = StampedLine(line) else {
        events.append(log: line, layer)
        return
      }
      events.time = stamped.nanoseconds
      events.append(log: String(stamped.text), layer)
    }
  }

  /// The guest does not run any more.
  private func stop(_ reason: String) {
    guard guestStop == nil, !isHalting else { return }
    guestStop = GuestStopped(result: .lost, abort: nil)
    stopReason = String(reason.prefix { $0 != "\n" }).printable
    forEachLine(Array(reason.utf8)) { events.append(log: "virt-walkerd: \($0)", .driver) }
    events.appendGuestStopped()
    answerAll()
  }

  /// The host does not run any more.
  private func lose(because reason: String) {
    guard isHostReady else { return }
    isHostReady = false
    append(log: host.console.takeText(), .kvm)
    stop(reason)
    answerAll()
  }

  /// Answers all requests whose answers will not come.
  private func answerAll() {
    let calls = waiting.sorted { $0.key < $1.key }
    waiting = [:]
    for call in calls { call.value(.lost) }
  }
}

// MARK: - The engine

extension KernelEngine: Engine {
  public var view: any MachineView { self }

  public func perform(
    _ step: Step, completion: @escaping (Result<[Observation], EngineFailure>) -> Void
  ) {
    guard case .host(let step) = step else {
      return completion(
        .failure(
          EngineFailure(
            "the guest runs Linux, so it executes no single instruction: give a step of the host, or use the node"
          )))
    }
    guard isRunning else {
      return completion(.failure(EngineFailure("the guest does not run: echo 1 > reset")))
    }
    let before = observedTarget
    send(LAB_STEP, Array("\(step)".utf8)) { [unowned self] answer in
      takePath(answer)
      var observations = answer.text.split(separator: "\n").compactMap {
        Observation(parsing: $0.drop { $0 == " " })
      }
      if observations.isEmpty {
        guard let error = answer.error else {
          return completion(.failure(EngineFailure(answer.text)))
        }
        guard let known = KernelError(rawValue: error.rawValue) else {
          return completion(.failure(EngineFailure("the host cannot do this: \(error)")))
        }
        observations = [.result(known)]
      }
      if let before, let after = observedTarget {
        observations.append(.leaf(HideSeek.target, before: before, after: after))
      }
      completion(.success(observations))
    }
  }

  /// The entry of the target in the form of a recording.
  private var observedTarget: ObservedLeaf? {
    guard let visit = targetPath.last else { return nil }
    return letters.observed(
      Leaf(descriptor: visit.descriptor, level: visit.level), for: HideSeek.target,
      machine.configuration.granule, counts: targetCounts)
  }

  public func reset(completion: @escaping (Result<Void, EngineFailure>) -> Void) {
    do throws(EngineFailure) {
      try boot(machine)
      startTrace()
    } catch {
      guestStop = GuestStopped(result: .lost, abort: nil)
      return completion(.failure(error))
    }
    completion(.success(()))
  }

  /// Ends the guest, and boots another one with the module.
  ///
  /// - Parameter machine: The machine, whose CPU and memory are those of the machine before.
  public func boot(_ machine: MachineDescription) throws(EngineFailure) {
    halt()
    answerAll()
    self.machine = machine
    setVersion()
    if !isHostReady { try powerCycle() }
    try boot()
  }

  /// Gives the machine the version of the model that describes the running kernel best.
  private func setVersion() {
    machine.configuration.kernel = KernelVersion(closestTo: kernelRelease)
  }

  private func powerCycle() throws(EngineFailure) {
    guard host.isRunning else { throw EngineFailure("the emulator has ended: restart the daemon") }
    isHostReady = false
    host.powerCycle()
    try waitForHost()
  }

  public func waitForAnswer() { takeFrames(waiting: 100) }
}
