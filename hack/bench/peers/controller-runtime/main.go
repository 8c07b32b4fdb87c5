// The job of the measured controller in controller-runtime's usual style: cached reads, one reconciler, 16 workers, the
// client's own rate limit off, status through the subresource. Not implemented, since the benchmark does not measure
// it: migrations, start backoff, lost nodes, live reads before a replacement.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"

	"go.uber.org/zap/zapcore"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	workers := flag.Int("workers", 16, "VMs reconciled at the same time")
	coalesce := flag.Bool("coalesce", false, "coalesce the status writes of VMs that are starting in a burst")
	metricsAddress := flag.String("metrics-bind-address", "127.0.0.1:8080", "address of /metrics")
	healthAddress := flag.String("health-probe-bind-address", "127.0.0.1:8081", "address of /healthz and /readyz")
	flag.Parse() // --kubeconfig is controller-runtime's own
	ctrl.SetLogger(zap.New(zap.Level(zapcore.ErrorLevel)))

	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	config.QPS = -1

	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	addToScheme(scheme)
	ours, err := labels.NewRequirement(vmLabel, selection.Exists, nil)
	if err != nil {
		return err
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                 scheme,
		Metrics:                metricsserver.Options{BindAddress: *metricsAddress},
		HealthProbeBindAddress: *healthAddress,
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject:         map[client.Object]cache.ByObject{&corev1.Pod{}: {Label: labels.NewSelector().Add(*ours)}},
		},
	})
	if err != nil {
		return err
	}
	signals := ctrl.SetupSignalHandler()
	if err := manager.GetFieldIndexer().IndexField(signals, &corev1.Pod{}, ownerIndex, ownerOf); err != nil {
		return err
	}
	if err := manager.AddReadyzCheck("synced", synced(manager)); err != nil {
		return err
	}
	// The controller's own status writes need no further reconcile of the VM.
	changed := predicate.Or[client.Object](
		predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}, predicate.LabelChangedPredicate{},
	)
	err = ctrl.NewControllerManagedBy(manager).
		For(&VirtualMachine{}, builder.WithPredicates(changed)).
		Owns(&corev1.Pod{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: *workers}).
		Complete(&Reconciler{
			Client:   manager.GetClient(),
			Coalesce: *coalesce,
			waits:    map[types.NamespacedName]wait{},
		})
	if err != nil {
		return err
	}
	return manager.Start(signals)
}

func ownerOf(object client.Object) []string {
	owner := metav1.GetControllerOf(object)
	if owner == nil || owner.Kind != "VirtualMachine" {
		return nil
	}
	return []string{string(owner.UID)}
}

// synced answers ready once the caches are filled.
func synced(manager ctrl.Manager) healthz.Checker {
	filled := make(chan struct{})
	go func() {
		<-manager.Elected()
		if manager.GetCache().WaitForCacheSync(context.Background()) {
			close(filled)
		}
	}()
	return func(*http.Request) error {
		select {
		case <-filled:
			return nil
		default:
			return fmt.Errorf("the caches are not filled yet")
		}
	}
}
