import Glibc
import Synchronization

/// Calls `make` for the numbers from 0 up to `count`, on as many threads as the system has CPUs.
///
/// - Returns: The results in the order of the numbers.
/// - Throws: The first error in this order.
func inParallel<Value: Sendable>(
  _ count: Int, _ make: @escaping @Sendable (Int) throws -> Value
) throws -> [Value] {
  let work = ParallelWork(count, make)
  let processors = sysconf(Int32(_SC_NPROCESSORS_ONLN))
  // The calling thread works, too. A system that has no thread left only takes longer.
  let threads = (0..<max(0, min(count, processors) - 1)).compactMap { _ in
    WorkerThread { work.run() }
  }
  let parts = [work.run()] + threads.map { $0.join() }
  return try parts.flatMap(\.results).sorted { $0.number < $1.number }.map { try $0.result.get() }
}

/// The calls of a function for the numbers from 0 up to a count, which several threads share. They share no result: a thread gives its results
/// when it ends.
private final class ParallelWork<Value: Sendable>: Sendable {
  /// The results of one thread.
  final class Part: Sendable {
    let results: [(number: Int, result: Result<Value, any Error>)]

    init(_ results: [(number: Int, result: Result<Value, any Error>)]) { self.results = results }
  }

  private let count: Int
  private let make: @Sendable (Int) throws -> Value
  private let next = Atomic<Int>(0)

  init(_ count: Int, _ make: @escaping @Sendable (Int) throws -> Value) {
    self.count = count
    self.make = make
  }

  /// Makes results until all are made, or until there is an error. Another thread has taken each smaller number by then.
  func run() -> Part {
    var results: [(number: Int, result: Result<Value, any Error>)] = []
    while true {
      let number = next.wrappingAdd(1, ordering: .relaxed).oldValue
      guard number < count else { return Part(results) }
      let result = Result { try make(number) }
      results.append((number, result))
      if case .failure = result { next.store(count, ordering: .relaxed) }
    }
  }
}

/// A thread that calls a function once.
private struct WorkerThread<Value: AnyObject & Sendable> {
  private let thread: pthread_t

  /// Starts a thread; nil if the system has none left.
  init?(_ run: @escaping @Sendable () -> Value) {
    var thread = pthread_t()
    let body = Unmanaged.passRetained(ThreadBody { Unmanaged.passRetained(run()).toOpaque() })
    let error = pthread_create(
      &thread, nil, { Unmanaged<ThreadBody>.fromOpaque($0!).takeRetainedValue().run() },
      body.toOpaque())
    guard error == 0 else {
      body.release()
      return nil
    }
    self.thread = thread
  }

  /// Waits for the value of the function. Call this once.
  func join() -> Value {
    var value: UnsafeMutableRawPointer?
    pthread_join(thread, &value)
    return Unmanaged.fromOpaque(value!).takeRetainedValue()
  }
}

/// A function for a thread, without the generic parameter that a C function cannot have.
private final class ThreadBody: Sendable {
  let run: @Sendable () -> UnsafeMutableRawPointer

  init(_ run: @escaping @Sendable () -> UnsafeMutableRawPointer) { self.run = run }
}
